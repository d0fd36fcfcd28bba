"""H-9: what is dated after now is no evidence: it is passed over with a word, and hides nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import pytest

from opslib.core.formatting import stamp, utc_now
from opslib.ops.checklist.benchmarks import check_benchmark
from opslib.ops.checklist.doctor import examine
from opslib.ops.checklist.items import Answer, Visit
from opslib.ops.checklist.maintenance import check_maintenance, check_rotation
from opslib.ops.checklist.policy import check_key_age
from opslib.ops.checklist.record import keep_checklist, read_checklists
from opslib.ops.checklist.releases import check_release, check_restore
from opslib.ops.checklist.run import run_checklist
from opslib.ops.release.record import Proof, add_proof
from opslib.ops.release.store import find_release
from opslib.serving.keys import key_age_days, make_key
from opslib.upkeep.maintenance import run_maintenance
from tests.ops.checklist.conftest import Plant, write_bench
from tests.ops.release.restoring import release
from tests.runs.makers import bench_row

AHEAD = timedelta(days=1500)


def said(answer: Answer) -> str:
    return "\n".join(answer.evidence)


def clean_ahead(plant: Plant) -> None:
    run_maintenance(plant.config(), show=lambda _: None, now=utc_now() + AHEAD, clock_is_right=True)


def prove(plant: Plant, name: str, *, ahead: bool, ok: bool = True) -> None:
    moment = utc_now() + AHEAD if ahead else utc_now() - timedelta(days=2)
    add_proof(
        plant.config(),
        Proof(
            release=name,
            content_id=None,
            proved_at_utc=moment.isoformat(timespec="seconds"),
            ok=ok,
            took_s=3.0,
            problem=None if ok else "a file differs",
        ),
    )


def test_a_maintenance_dated_after_now_hides_no_missing_one(resting: Plant) -> None:
    clean_ahead(resting)
    answer = check_maintenance(resting.visit())
    assert answer.state == "attention"
    assert "passed over, dated after now: 1 record, maintenance_" in said(answer)
    run_maintenance(resting.config(), show=lambda _: None)
    answer = check_maintenance(resting.visit())
    assert answer.state == "attention"
    assert "0 minutes ago: " in said(answer)
    assert "is the clock right?" in said(answer)
    answer = check_maintenance(resting.visit(now=utc_now() + timedelta(hours=40)))
    assert "it is due at least every 36 h" in said(answer)


def test_a_benchmark_dated_after_now_is_not_the_last_one(resting: Plant) -> None:
    config = resting.config()
    write_bench(config, -1500, bench_row(1.0))
    answer = check_benchmark(resting.visit())
    assert answer.state == "attention"
    assert "passed over, dated after now: 1 benchmark, bench_" in said(answer)
    write_bench(config, 30, bench_row(2.0))
    slower = write_bench(config, 1, bench_row(4.0))
    answer = check_benchmark(resting.visit())
    assert answer.state == "failed"
    assert slower.name in said(answer)
    assert "is the clock right?" in said(answer)


def test_many_of_them_do_not_hide_a_regression(resting: Plant) -> None:
    for number in range(25):
        write_bench(resting.config(), -1500 - number, bench_row(1.0))
    write_bench(resting.config(), 30, bench_row(2.0))
    write_bench(resting.config(), 1, bench_row(4.0))
    assert check_benchmark(resting.visit()).state == "failed"


def test_a_key_dated_after_now_has_no_known_age(resting: Plant) -> None:
    made = utc_now() + AHEAD
    env_file = resting.folder / ".env"
    env_file.write_text(f"# API_KEY since {made.isoformat()}\nAPI_KEY={make_key()}\n")
    env_file.chmod(0o600)
    answer = check_key_age(resting.visit())
    assert answer.state == "attention"
    assert f"it is dated {made:%Y-%m-%d}, after now: is the clock right?" in said(answer)
    assert "pillops key rotate" in (answer.next_step or "")
    assert (key_age_days(env_file) or 0) < -1000
    assert any("dated after now" in one.seen for one in examine(resting.config()))


def test_a_note_without_a_time_zone_is_read(resting: Plant) -> None:
    made = (utc_now() - timedelta(days=40)).replace(tzinfo=None)
    env_file = resting.folder / ".env"
    env_file.write_text(f"# API_KEY since {made.isoformat()}\nAPI_KEY={make_key()}\n")
    env_file.chmod(0o600)
    assert "40 days old, to be rotated after 31 days" in check_key_age(resting.visit()).evidence


def test_a_checklist_dated_after_now_does_not_say_since_when(resting: Plant) -> None:
    config = resting.config()
    record = run_checklist(config, "daily")
    moment = utc_now() + AHEAD
    lineage = record.lineage.model_copy(update={"created_at_utc": moment.isoformat()})
    for number in range(15):
        path = config.records_dir / f"checklist_daily_{stamp(moment + number * AHEAD)}.json"
        keep_checklist(record.model_copy(update={"lineage": lineage}), config, path)
    keep_checklist(record, config)
    assert read_checklists(config) == [record]


def test_a_tunnel_archive_dated_after_now_does_not_stand_for_a_rotation(resting: Plant) -> None:
    logs = resting.config().logs_dir
    logs.mkdir(exist_ok=True)
    (logs / "cloudflared.log").write_text("2026-11-01T00:00:00Z INF up\n")
    for name, days in (("20261101", -20), ("20301101", 1500)):
        moment = (utc_now() + timedelta(days=days)).timestamp()
        (logs / f"cloudflared.log.{name}.gz").write_bytes(b"")
        os.utime(logs / f"cloudflared.log.{name}.gz", (moment, moment))
    answer = check_rotation(resting.visit())
    assert "not rotated for 20 days" in said(answer)
    assert "dated after now: 1 archive, cloudflared.log.20301101.gz" in said(answer)


def test_a_restore_test_dated_after_now_proves_nothing_and_its_failure_counts(
    resting: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = release(resting.config(), monkeypatch).name
    prove(resting, name, ahead=True)
    answer = check_restore(resting.visit())
    assert answer.state == "attention"
    assert f"passed over, dated after now: 1 restore test, {name}" in said(answer)
    prove(resting, name, ahead=False)
    assert "last test 2 days ago" in said(check_restore(resting.visit()))
    prove(resting, name, ahead=True, ok=False)
    assert check_restore(resting.visit()).state == "failed"


def test_the_only_release_that_was_proved_is_gone(
    resting: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resting.config()
    old = release(config, monkeypatch)
    prove(resting, old.name, ahead=False)
    assert check_restore(resting.visit()).state == "ok"
    new = release(config, monkeypatch, 1)
    for path in old.files:
        path.unlink()
    answer = check_restore(resting.visit())
    assert answer.state == "attention"
    assert f"{old.name}, proved last, is gone" in said(answer)
    assert answer.next_step == "prove one: `pillops release prove`"
    prove(resting, new.name, ahead=False)
    assert check_restore(resting.visit()).state == "ok"


def test_a_test_of_other_content_of_that_name_proves_nothing(
    resting: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = release(resting.config(), monkeypatch)
    other = Proof(
        release=stored.name,
        content_id="0" * 64,
        proved_at_utc=utc_now().isoformat(timespec="seconds"),
        ok=True,
        took_s=1.0,
    )
    add_proof(resting.config(), other)
    assert check_restore(resting.visit()).state == "attention"


@pytest.mark.parametrize("check", [check_release, check_restore, check_maintenance])
def test_clocks_that_differ_by_minutes_are_nobodys_fault(
    plant: Plant, check: Callable[[Visit], Answer]
) -> None:
    moment = find_release(plant.config()).released_at_utc
    assert moment is not None
    answer = check(plant.visit(now=utc_now() - timedelta(minutes=4)))
    assert answer.state == "ok", answer
