"""Sweeps of the service of a small real model: real services, loaded over HTTP."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import ModelError, ParameterError
from opslib.ops.served_sweep import services, visits
from opslib.ops.served_sweep.answers import AnswerError
from opslib.ops.served_sweep.record import Goal, ServedOptions, ServedSweepRecord
from opslib.ops.served_sweep.request import ServedSweepRequest
from opslib.ops.served_sweep.run import TRIALS_NAME, keep_served_sweep, run_served_sweep
from opslib.ops.served_sweep.setup import choose_goal
from opslib.ops.served_sweep.visits import Visits
from opslib.timing.rounds import VisitTimes
from tests.models import write_config, write_images, write_onnx

# One thread spins beside nobody: five rows, three services.
QUICK = (
    "sweep: {served_budget_s: 4, workers: [1], threads: [1], spinning: [true, false],"
    " parity_images: 2, finalists: 2}\n"
)


def hurry(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("CUDA_VISIBLE_DEVICES", "")
    patch.setattr(visits, "LOAD_S", 0.1)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def make_experiment(folder: Path, extra: str = QUICK) -> Config:
    write_images(folder / "images/val/a", 4)
    write_onnx(folder / "exp/export/m.onnx")
    return load_config(write_config(folder, extra), {})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An experiment of four images and one small model, swept loosely and quickly."""
    return make_experiment(tmp_path)


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Config, ServedSweepRecord, list[str]]]:
    """One finished sweep, shared by the tests that only read it."""
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        config = make_experiment(tmp_path_factory.mktemp("swept"))
        steps: list[str] = []
        record = run_served_sweep(
            config, ServedSweepRequest(), progress=lambda _share, what: steps.append(what)
        )
        yield config, record, steps


Swept = tuple[Config, ServedSweepRecord, list[str]]


def test_every_combination_has_a_row_with_its_figure_or_why_it_has_none(swept: Swept) -> None:
    _, record, _ = swept
    assert [row.number for row in record.rows] == [1, 2, 3, 4, 5]
    assert [row.same_as for row in record.rows] == [None, None, 2, None, 4]
    measured = [row for row in record.rows if row.same_as is None]
    assert [row.options.label for row in measured] == [
        "default",
        "1 worker, no batching",
        "1 worker",
    ]
    for row in measured:
        assert row.outcome in ("measured", "pruned")
        assert row.provider == "CPU"
        assert row.rate_per_s == pytest.approx(np.median(row.raw_per_s), rel=1e-3)
        assert len(row.raw_per_s) == len(row.default_raw_per_s)
        assert row.p99_ms is None
        assert row.max_abs_diff is not None
        assert row.max_abs_diff < 1e-4


def test_it_ends_with_a_best_a_tie_set_and_the_simplest_that_may_be_as_good(swept: Swept) -> None:
    _, record, _ = swept
    assert record.verdict in ("pass", "inconclusive")
    assert record.result is not None
    assert record.best is not None
    assert record.recommended is not None
    assert record.best.row in record.recommended.tie_set
    changes = [len(record.row(row).options.changes()) for row in record.recommended.tie_set]
    assert len(record.recommended.changes) <= min(changes)
    low, high = record.recommended.gain_ci95
    assert low <= record.recommended.gain <= high
    assert record.row(record.best.row).from_finals
    assert "requests a second, p99 within 100 ms" in record.finding or record.verdict != "pass"


def test_progress_tells_who_is_in_the_race(swept: Swept) -> None:
    _, _, steps = swept
    assert any("in the race, ahead: " in step for step in steps)
    assert any(step.startswith("measuring the finalists: default | ") for step in steps)
    assert steps[-1] == "done"


def test_nothing_is_left_in_the_experiment_but_the_record(swept: Swept) -> None:
    config, record, _ = swept
    path = keep_served_sweep(record, config)
    latest = config.records_dir / "served_sweep.json"
    assert path.name.startswith("served_sweep_2")
    assert latest.read_bytes() == path.read_bytes()
    assert ServedSweepRecord.read(latest) == record
    assert json.loads(latest.read_text())["schema"] == "served_sweep/1"
    found = {one.relative_to(config.exp_dir) for one in config.exp_dir.rglob("*") if one.is_file()}
    assert found == {
        Path("export/m.onnx"),
        Path("reports/served_sweep.json"),
        Path("reports") / path.name,
    }
    assert not (config.records_dir / TRIALS_NAME).exists()


def test_an_interrupted_sweep_goes_on_where_it_was(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(services.Services, "measure_finalists", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_served_sweep(config, ServedSweepRequest())
    kept = (config.records_dir / TRIALS_NAME).read_text().splitlines()
    assert len(kept) == 3
    steps: list[str] = []
    record = run_served_sweep(
        config, ServedSweepRequest(), progress=lambda _share, what: steps.append(what)
    )
    assert record.resumed_trials == 3
    assert not any(step.startswith("racing") for step in steps)
    assert record.result is not None


def test_a_service_that_is_not_as_it_was_told_or_dies_costs_its_own_row_and_no_other(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, visit = services.check_in_force, Visits.__call__
    seen: list[int] = []

    def check_too(said: dict[str, object], options: ServedOptions, sha256: str) -> None:
        said = said | ({"workers": 9} if options.max_batch == 1 else {})
        check(said, options, sha256)

    def die_in_the_race(self: Visits, runs: int) -> VisitTimes:
        seen.append(self.number)
        if self.number == 4 and seen.count(4) == 2:
            os.kill(self.service.pid, signal.SIGKILL)
        return visit(self, runs)

    monkeypatch.setattr(services, "check_in_force", check_too)
    monkeypatch.setattr(Visits, "__call__", die_in_the_race)
    record = run_served_sweep(config, ServedSweepRequest())
    rows = {row.number: row.status for row in record.rows}
    assert rows[2] == "unavailable: service.workers: the service has 9, was told 1"
    assert rows[4].startswith("unavailable: it stopped while it was timed: ")
    assert "the first one with no answer" in rows[4]
    assert record.row(1).outcome == "measured"
    assert record.recommended is not None
    assert record.recommended.is_default


def test_a_default_that_answers_otherwise_fails_and_nothing_is_recommended(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = np.array([[0.0, 0.0, 1.0]] * 2, np.float32)
    monkeypatch.setattr(services, "answer_as_written", lambda *_: written)
    record = run_served_sweep(config, ServedSweepRequest())
    assert (record.verdict, record.exit_code) == ("fail", 3)
    assert "The default does not serve: it does not answer alike" in record.finding
    assert record.recommended is None
    assert not any(row.has_figure for row in record.rows)


def test_a_limit_that_nothing_keeps_is_said(config: Config) -> None:
    record = run_served_sweep(config, ServedSweepRequest(p99_limit_ms=0.001))
    assert (record.verdict, record.exit_code) == ("fail", 3)
    assert "its p99 is over 0.001 ms at" in record.finding


def test_at_a_given_rate_the_figure_is_the_p99(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "FEWEST_REQUESTS", 20)
    request = ServedSweepRequest(objective="p99", rate_per_s=40.0, budget_s=2.0)
    record = run_served_sweep(config, request)
    assert record.goal == Goal(objective="p99", rate_per_s=40.0)
    assert record.best is not None
    assert record.best.rate_per_s is None
    for row in record.rows:
        if row.has_figure:
            assert row.p99_ms == pytest.approx(np.median(row.raw_p99_ms), rel=1e-3)
            assert row.raw_per_s == ()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ServedSweepRequest(objective="p50"), "--objective: unknown objective 'p50'; expected thr"),
        (ServedSweepRequest(p99_limit_ms=0), "--p99-limit: got 0; expected milliseconds above 0"),
        (ServedSweepRequest(p99_limit_ms=float("nan")), "--p99-limit: got nan"),
        (ServedSweepRequest(rate_per_s=5), "--rate: belongs to --objective p99"),
        (ServedSweepRequest(objective="p99"), "--rate: missing; --objective p99 needs it"),
        (ServedSweepRequest(objective="p99", rate_per_s=-1), "--rate: got -1; expected requests"),
        (
            ServedSweepRequest(objective="p99", rate_per_s=5, p99_limit_ms=5),
            "--p99-limit: belongs to --objective throughput",
        ),
        (ServedSweepRequest(budget_s=0), "--budget: got 0"),
    ],
)
def test_bad_input_is_refused_before_any_time_is_spent(
    config: Config, request_: ServedSweepRequest, message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        run_served_sweep(config, request_)


def test_a_model_that_is_not_there_is_named(config: Config) -> None:
    with pytest.raises(ModelError, match=r"/nowhere/m\.onnx"):
        run_served_sweep(config, ServedSweepRequest(model=Path("/nowhere/m.onnx")))


def test_the_rate_may_stand_in_the_configuration(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, "sweep: {rate_per_s: 120}\n"), {})
    assert choose_goal(config, ServedSweepRequest(objective="p99")).rate_per_s == 120.0
    assert choose_goal(config, ServedSweepRequest()).p99_limit_ms == 100.0


def test_a_service_is_held_against_what_it_was_told() -> None:
    said = {
        "model_sha256": "a",
        "workers": 3,
        "intra_op_num_threads": 2,
        "allow_spinning": False,
        "max_batch": 1,
        "unbatched": "the model's batch is fixed",
    }
    options = ServedOptions(workers=3, intra_op_num_threads=2, allow_spinning=False)
    services.check_in_force(said, options, "a")
    for name, other in {"model_sha256": "b", "intra_op_num_threads": 1}.items():
        with pytest.raises(AnswerError, match=f"{name}: the service has {other}, was told"):
            services.check_in_force(said | {name: other}, options, "a")
