"""H-1, H-2, H-9: the weekly look at maintenance, rotation, releases and restore tests."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from opslib.core.formatting import utc_now
from opslib.ops.checklist.items import Answer
from opslib.ops.checklist.maintenance import check_maintenance, check_rotation
from opslib.ops.checklist.releases import check_release, check_restore
from opslib.ops.release.build import build_release
from opslib.ops.release.record import Proof, add_proof
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.rota import prove_release
from opslib.ops.release.store import find_release
from opslib.upkeep.maintenance import run_maintenance
from tests.ops.checklist.conftest import Plant
from tests.ops.release.restoring import flip_byte, release


def said(answer: Answer) -> str:
    return "\n".join(answer.evidence)


def age(path: Path, days: float) -> Path:
    moment = (utc_now() - timedelta(days=days)).timestamp()
    os.utime(path, (moment, moment))
    return path


def test_a_healthy_week_is_ok(plant: Plant) -> None:
    for check in (check_maintenance, check_rotation, check_release, check_restore):
        answer = check(plant.visit())
        assert answer.state == "ok", answer
    assert "the live model is in release-" in said(check_release(plant.visit()))


def test_maintenance_that_never_ran_is_said_with_the_command(resting: Plant) -> None:
    answer = check_maintenance(resting.visit())
    assert answer.state == "attention"
    assert "not set up" in said(answer)
    assert "pillops schedule install" in (answer.next_step or "")


def test_maintenance_that_stopped_running_wants_attention(resting: Plant) -> None:
    run_maintenance(resting.config(), show=lambda _: None)
    assert check_maintenance(resting.visit()).state == "ok"
    later = utc_now() + timedelta(hours=37)
    answer = check_maintenance(resting.visit(now=later))
    assert answer.state == "attention"
    assert "37 hours ago" in said(answer)
    assert "due at least every 36 h" in said(answer)


def test_what_maintenance_had_to_leave_is_shown(resting: Plant) -> None:
    config = resting.config()
    (config.exp_dir / "served.json").write_text("damaged")
    run_maintenance(config, show=lambda _: None)
    answer = check_maintenance(resting.visit())
    assert answer.state == "attention"
    assert "left alone: models" in said(answer)


def test_a_damaged_record_is_named(resting: Plant) -> None:
    (resting.config().records_dir / "maintenance_20261125-020000.json").write_text("{")
    answer = check_maintenance(resting.visit())
    assert answer.state == "attention"
    assert "maintenance_20261125-020000.json: not a maintenance/1 record" in said(answer)


def test_a_log_that_nothing_cuts_wants_attention(resting: Plant) -> None:
    config = resting.config()
    config.logs_dir.mkdir(exist_ok=True)
    log = config.logs_dir / "api.out"
    log.write_bytes(b"")
    os.truncate(log, 250 << 20)
    answer = check_rotation(resting.visit())
    assert answer.state == "attention"
    assert "not cut at 100 MiB: api.out (250 MiB)" in said(answer)


def test_archives_that_nothing_deletes_want_attention(resting: Plant) -> None:
    archive = resting.config().logs_dir / "archive"
    archive.mkdir(parents=True)
    (archive / "api.err.gz").write_bytes(b"")
    age(archive / "api.err.gz", 40)
    answer = check_rotation(resting.visit())
    assert answer.state == "attention"
    assert "1 archive older than 30 days" in said(answer)


def test_a_tunnel_log_that_nothing_rotates_wants_attention(resting: Plant) -> None:
    config = resting.config()
    config.logs_dir.mkdir(exist_ok=True)
    log = config.logs_dir / "cloudflared.log"
    old = utc_now() - timedelta(days=20)
    log.write_text(f'{{"level":"info","time":"{old:%Y-%m-%dT%H:%M:%SZ}","message":"up"}}\n')
    answer = check_rotation(resting.visit())
    assert answer.state == "attention"
    assert "not rotated for 20 days: due after 7" in said(answer)
    part = config.logs_dir / "cloudflared.log.20261120.gz"
    part.write_bytes(b"")
    assert check_rotation(resting.visit()).state == "ok"
    age(part, 12)
    assert check_rotation(resting.visit()).state == "attention"


def test_no_release_is_said_with_the_command(resting: Plant) -> None:
    for check in (check_release, check_restore):
        answer = check(resting.visit())
        assert answer.state == "attention"
        assert "not set up" in said(answer)
        assert "pillops release create" in (answer.next_step or "")


def test_a_stale_release_wants_attention(resting: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = release(resting.config(), monkeypatch)
    answer = check_release(resting.visit())
    assert answer.state == "attention"
    assert f"{stale.name}, " in said(answer)
    assert "one is due every 8 days" in said(answer)


def test_a_broken_last_release_has_failed(resting: Plant) -> None:
    made = build_release(resting.config(), ReleaseRequest(verify=False)).path
    Path(f"{made}.sha256").unlink()
    answer = check_release(resting.visit())
    assert answer.state == "failed"
    assert ".sha256 is missing" in said(answer)


def test_a_live_model_that_is_in_no_release_wants_attention(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "exp" / "releases").mkdir(parents=True)
    made = plant.config()
    only_first = ReleaseRequest(
        onnx=plant.place.first, only=True, out=tmp_path / "exp" / "releases", verify=False
    )
    build_release(made, only_first)
    elsewhere = plant.visit(paths__exp_dir=str(tmp_path / "exp"))
    answer = check_release(elsewhere)
    assert answer.state == "attention"
    assert "is in no release" in answer.evidence[0]


def test_a_release_that_does_not_restore_has_failed(resting: Plant) -> None:
    config = resting.config()
    made = build_release(config, ReleaseRequest(verify=False)).path
    flip_byte(made)
    prove_release(config, find_release(config))
    answer = check_restore(resting.visit())
    assert answer.state == "failed"
    assert "does not restore: " in said(answer)
    assert "make a new release" in (answer.next_step or "")


def prove(plant: Plant, name: str, *, days_ago: float = 1, ok: bool = True, **more: str) -> None:
    moment = (utc_now() - timedelta(days=days_ago)).isoformat(timespec="seconds")
    proof = Proof(
        release=name,
        content_id=None,
        proved_at_utc=moment,
        ok=ok,
        took_s=3.0,
        problem=None if ok else "a file differs",
        note=more.get("note"),
    )
    add_proof(plant.config(), proof)


def test_a_stale_restore_test_wants_attention(
    resting: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = release(resting.config(), monkeypatch).name
    prove(resting, name, days_ago=9)
    answer = check_restore(resting.visit())
    assert answer.state == "attention"
    assert "last test 9 days ago" in said(answer)


def test_a_failed_restore_stays_failed_until_that_release_restores_or_is_gone(
    resting: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resting.config()
    old, new = (release(config, monkeypatch, week) for week in (0, 1))
    prove(resting, old.name, ok=False, days_ago=3)
    prove(resting, new.name)
    assert check_restore(resting.visit()).state == "failed"
    prove(resting, old.name)
    assert check_restore(resting.visit()).state == "ok"
    prove(resting, old.name, ok=False)
    prove(resting, new.name)
    for path in old.files:
        path.unlink()
    assert check_restore(resting.visit()).state == "ok"


def test_a_restore_that_could_not_be_asked_wants_attention(
    resting: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = release(resting.config(), monkeypatch).name
    prove(resting, name, note="its model has no golden answers")
    answer = check_restore(resting.visit())
    assert answer.state == "attention"
    assert "restores, but its model has no golden answers" in said(answer)
