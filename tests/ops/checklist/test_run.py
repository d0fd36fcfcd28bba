"""H-9: the whole checklist: quiet where all is well, and no planted fault unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from opslib.core.errors import ExitCode, ParameterError
from opslib.core.files import link_atomic
from opslib.core.formatting import utc_now
from opslib.ops.checklist.items import PERIODS, Period, State
from opslib.ops.checklist.record import ChecklistRecord, keep_checklist, read_checklists
from opslib.ops.checklist.run import CHECKS, checks_of, run_checklist
from opslib.serving.keys import make_key
from tests.ops.checklist.conftest import Plant, answering, closed_port, json_line, write_bench
from tests.runs.makers import bench_row


def test_a_healthy_operation_is_quiet_in_ten_of_ten_runs(plant: Plant) -> None:
    for number in range(10):
        record = run_checklist(plant.config(), PERIODS[number % 3])
        loud = [item for item in record.items if not item.is_quiet]
        assert not loud, loud
        assert (record.verdict, record.exit_code) == ("pass", 0)
        assert record.finding == (
            f"{record.period.capitalize()}: all is well, {len(record.items)} items are ok."
        )


def test_a_longer_period_has_the_items_of_the_shorter_ones() -> None:
    daily, weekly, monthly = (checks_of(period) for period in PERIODS)
    assert weekly[: len(daily)] == daily
    assert monthly[: len(weekly)] == weekly
    assert monthly == CHECKS
    names = {check.name for check in daily}
    assert names == {"inside", "outside", "model", "api_log", "tunnel_log", "disks"}
    with pytest.raises(ParameterError, match="period: got 'yearly', expected one of daily"):
        run_checklist(None, "yearly")  # type: ignore[arg-type]


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    """A file with another text for the block."""
    kept = path.read_bytes()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_bytes(kept)


@contextmanager
def overriding(**keys: str) -> Iterator[dict[str, str]]:
    yield keys


@contextmanager
def service_down(_plant: Plant) -> Iterator[dict[str, str]]:
    url = f"http://127.0.0.1:{closed_port()}"
    yield {"client__url": url, "health__internal_url": f"{url}/health"}


@contextmanager
def tunnel_down(_plant: Plant) -> Iterator[dict[str, str]]:
    yield {"health__external_url": f"http://127.0.0.1:{closed_port()}/health"}


@contextmanager
def disk_nearly_full(_plant: Plant) -> Iterator[dict[str, str]]:
    yield {"checklist__disk_attention_pct": "0.001", "checklist__disk_failed_pct": "0.002"}


@contextmanager
def errors_in_a_log(plant: Plant) -> Iterator[dict[str, str]]:
    log = plant.config().logs_dir / "api.err"
    with changed(log, log.read_text() + json_line("a request failed")):
        yield {}


@contextmanager
def stale_release(_plant: Plant) -> Iterator[dict[str, str]]:
    yield {"checklist__release_age_days": "1.0e-9", "checklist__proof_age_days": "1.0e-9"}


@contextmanager
def failed_restore(plant: Plant) -> Iterator[dict[str, str]]:
    proofs = plant.config().releases_dir / "proofs.json"
    text = proofs.read_text().replace('"ok": true', '"ok": false')
    with changed(proofs, text.replace('"problem": null', '"problem": "a file differs"')):
        yield {}


@contextmanager
def weak_key(plant: Plant) -> Iterator[dict[str, str]]:
    with changed(plant.folder / ".env", "API_KEY=hunter2hunter2\n"):
        yield {}


@contextmanager
def model_behind_latest(plant: Plant) -> Iterator[dict[str, str]]:
    latest = plant.place.export / "latest.onnx"
    link_atomic(latest, plant.place.first.name)
    try:
        yield {}
    finally:
        link_atomic(latest, plant.place.second.name)


@contextmanager
def regression_of_10_percent(plant: Plant) -> Iterator[dict[str, str]]:
    slower = (bench_row(2.01 * 1.1), bench_row(4.97 * 1.1, batch_size=8))
    path = write_bench(plant.config(), 0, *slower)
    try:
        yield {}
    finally:
        path.unlink()


@contextmanager
def upload_limit_off(_plant: Plant) -> Iterator[dict[str, str]]:
    yield {"checklist__upload_limit_mb": "2"}


FAULTS: list[tuple[Callable[..., object], Period, str, State]] = [
    (service_down, "daily", "inside", "failed"),
    (tunnel_down, "daily", "outside", "failed"),
    (disk_nearly_full, "daily", "disks", "failed"),
    (errors_in_a_log, "daily", "api_log", "attention"),
    (model_behind_latest, "daily", "model", "attention"),
    (stale_release, "weekly", "release", "attention"),
    (stale_release, "weekly", "restore", "attention"),
    (failed_restore, "weekly", "restore", "failed"),
    (weak_key, "monthly", "key", "failed"),
    (upload_limit_off, "monthly", "uploads", "failed"),
    (regression_of_10_percent, "monthly", "benchmark", "failed"),
]


@pytest.mark.parametrize(
    ("plant_fault", "period", "name", "state"),
    FAULTS,
    ids=[f"{fault.__name__}-{name}" for fault, _, name, _ in FAULTS],
)
def test_a_planted_fault_is_noticed_with_its_evidence_and_the_next_step(
    plant: Plant,
    plant_fault: Callable[[Plant], Iterator[dict[str, str]]],
    period: str,
    name: str,
    state: State,
) -> None:
    with plant_fault(plant) as keys:  # type: ignore[attr-defined]
        record = run_checklist(plant.config(**keys), period)
    item = record.item(name)
    assert item is not None
    assert item.state == state, item
    assert item.evidence
    assert item.next_step
    assert item.title in record.finding
    expected = ExitCode.GATE_FAILED if state == "failed" else ExitCode.INCONCLUSIVE
    assert record.exit_code == expected
    assert record.by_state()[0].state == state


def test_attention_alone_is_inconclusive_and_a_failure_outweighs_it(plant: Plant) -> None:
    with errors_in_a_log(plant):
        attention = run_checklist(plant.config(), "daily")
        with tunnel_down(plant) as keys:
            failed = run_checklist(plant.config(**keys), "daily")
    assert (attention.verdict, attention.exit_code) == ("inconclusive", 4)
    assert attention.finding == "Daily: API log wants attention; 5 items are ok."
    assert (failed.verdict, failed.exit_code) == ("fail", 3)
    assert failed.finding == (
        "Daily: Health, outside failed; API log wants attention; 4 items are ok."
    )


def test_nothing_at_all_set_up_still_makes_a_list(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("paths: {exp_dir: none, data_root: none}\n")
    from opslib.core.config import load_config

    url = f"http://127.0.0.1:{closed_port()}"
    config = load_config(
        tmp_path / "config.yaml",
        {"PILLSNAP_CLIENT__URL": url, "PILLSNAP_HEALTH__INTERNAL_URL": f"{url}/health"},
    )
    record = run_checklist(config, "monthly")
    assert len(record.items) == len(CHECKS)
    assert all(item.next_step for item in record.items if not item.is_quiet)
    assert not list(tmp_path.glob("none*"))


def test_a_record_that_cannot_be_read_makes_its_item_unknown_not_the_end(plant: Plant) -> None:
    proofs = plant.config().releases_dir / "proofs.json"
    with changed(proofs, "{"):
        record = run_checklist(plant.config(), "weekly")
    item = record.item("restore")
    assert item is not None
    assert item.state == "unknown"
    assert "proofs.json" in item.evidence[0]
    assert record.verdict == "inconclusive"


def test_the_key_is_in_nothing_that_is_kept(plant: Plant) -> None:
    key = plant.service.key
    log = plant.config().logs_dir / "api.err"
    with changed(log, log.read_text() + json_line(f"refused {key}")):
        record = run_checklist(plant.config(), "monthly")
    assert record.item("api_log").state == "attention"  # type: ignore[union-attr]
    assert key not in record.to_json()


def test_a_service_that_repeats_the_key_does_not_bring_it_into_the_record(plant: Plant) -> None:
    key = plant.service.key
    with answering(400, f'{{"detail": "bad key {key}"}}'.encode()) as url:
        record = run_checklist(plant.config(client__url=url), "daily")
    assert "bad key ********" in " ".join(record.item("model").evidence)  # type: ignore[union-attr]
    assert key not in record.to_json()


def test_a_record_is_kept_and_read_again(plant: Plant, tmp_path: Path) -> None:
    record = run_checklist(plant.config(), "daily")
    assert (
        ChecklistRecord.read(keep_checklist(record, plant.config(), tmp_path / "r.json")) == record
    )
    (tmp_path / "exp").mkdir()
    exp_dir = {"paths__exp_dir": str(tmp_path / "exp")}
    path = keep_checklist(record, plant.config(**exp_dir))
    assert path.name.startswith("checklist_daily_20")
    assert read_checklists(plant.config(**exp_dir)) == [record]


def test_an_item_says_since_when_it_is_so(plant: Plant, tmp_path: Path) -> None:
    exp_dir = {"paths__exp_dir": str(tmp_path / "exp"), **dict(tunnel(plant))}
    config = plant.config(**exp_dir)
    first = run_checklist(config, "daily")
    assert first.item("outside").since_utc is None  # type: ignore[union-attr]
    for days, state in ((9, "failed"), (6, "ok"), (3, "failed"), (2, "failed")):
        moment = utc_now() - timedelta(days=days)
        items = tuple(
            item.model_copy(update={"state": state}) if item.name == "outside" else item
            for item in first.items
        )
        lineage = first.lineage.model_copy(update={"created_at_utc": moment.isoformat()})
        told = first.model_copy(update={"items": items, "lineage": lineage})
        told.write(config.records_dir / f"checklist_daily_{moment:%Y%m%d-%H%M%S}.json")
    since = run_checklist(config, "daily").item("outside").since_utc  # type: ignore[union-attr]
    assert since is not None
    assert since.startswith(f"{utc_now() - timedelta(days=3):%Y-%m-%d}")


def tunnel(plant: Plant) -> dict[str, str]:
    with tunnel_down(plant) as keys:
        return keys


@pytest.mark.parametrize("hours", [0.0, -1.0, 1e9, float("nan")])
def test_an_impossible_window_is_refused(plant: Plant, hours: float) -> None:
    with pytest.raises(ParameterError, match="hours: got"):
        run_checklist(plant.config(), "daily", hours=hours)


def test_a_key_rotated_without_a_restart_is_said_as_that(plant: Plant) -> None:
    env_file = plant.folder / ".env"
    with changed(env_file, env_file.read_text().replace(plant.service.key, make_key())):
        record = run_checklist(plant.config(), "monthly")
    model = record.item("model")
    assert model is not None
    assert model.state == "failed"
    assert "rotated without a restart" in (model.next_step or "")
    assert record.item("uploads").state == "failed"  # type: ignore[union-attr]
