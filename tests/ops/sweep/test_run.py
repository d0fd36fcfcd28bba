"""Sweeps of small real models: rows, gates, resuming, and what is said of them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import ModelError, ParameterError
from opslib.core.sections import ParitySection
from opslib.inference.engine import EngineRequest
from opslib.inference.postprocess import softmax
from opslib.ops.sweep import arms as sweep_arms
from opslib.ops.sweep import race as sweep_race
from opslib.ops.sweep.arms import Arm, arithmetic_of, check_candidate
from opslib.ops.sweep.finals import speedup_interval
from opslib.ops.sweep.record import RaceResult, SweepOptions, SweepRecord
from opslib.ops.sweep.request import SweepRequest
from opslib.ops.sweep.rows import follow, make_result
from opslib.ops.sweep.run import (
    digest_graph,
    keep_sweep,
    run_sweep,
)
from opslib.ops.sweep.trials import TRIALS_NAME, Trial, TrialBook
from opslib.timing.station import Station
from tests.models import write_config, write_images, write_onnx

QUICK = "sweep: {batch: [1], budget_s: 6, spinning: [false], parity_images: 2, threads: [0, 1]}\n"


@pytest.fixture(autouse=True)
def _no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An experiment of four images and one small model, swept loosely and quickly."""
    write_images(tmp_path / "images/val/a", 4)
    write_onnx(tmp_path / "exp/export/m.onnx")
    return load_config(write_config(tmp_path, QUICK), {})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, SweepRecord, list[str]]:
    """One finished sweep, shared by the tests that only read it."""
    folder = tmp_path_factory.mktemp("swept")
    write_images(folder / "images/val/a", 4)
    write_onnx(folder / "exp/export/m.onnx")
    config = load_config(write_config(folder, QUICK), {})
    steps: list[str] = []
    record = run_sweep(config, SweepRequest(), progress=lambda _share, what: steps.append(what))
    return config, record, steps


def test_every_requested_combination_has_a_row_with_a_status(
    swept: tuple[Config, SweepRecord, list[str]],
) -> None:
    _, record, _ = swept
    assert [row.number for row in record.rows] == list(range(1, len(record.rows) + 1))
    words = {row.status.split()[0] for row in record.rows}
    assert words <= {"measured", "equivalent", "pruned", "unavailable:"}
    for row in record.rows:
        if row.options.providers == ("CUDA",):
            assert row.status.startswith("unavailable: CUDA cannot start")
            assert (row.provider, row.p50_ms) == ("none", None)
        else:
            assert row.provider == "CPU"
        if row.status.startswith("equivalent"):
            assert follow(record.rows, row).has_figure
            assert row.p50_ms is None


def test_a_sweep_ends_with_a_best_a_tie_set_and_the_simplest_that_may_be_as_good(
    swept: tuple[Config, SweepRecord, list[str]],
) -> None:
    _, record, _ = swept
    assert record.best is not None
    assert record.recommended is not None
    assert record.best.row in record.recommended.tie_set
    changes = [len(record.row(row).options.changes()) for row in record.recommended.tie_set]
    assert len(record.recommended.changes) <= min(changes)
    assert record.row(record.best.row).from_finals
    assert record.best.throughput_img_s == pytest.approx(1000 / record.best.p50_ms)
    low, high = record.recommended.gain_ci95
    assert low <= record.recommended.gain <= high


def test_raw_values_reproduce_the_figures(swept: tuple[Config, SweepRecord, list[str]]) -> None:
    _, record, _ = swept
    for row in record.rows:
        if row.has_figure:
            assert row.p50_ms == pytest.approx(np.median(row.raw_ms), rel=1e-3)
            assert len(row.raw_ms) == len(row.default_raw_ms)
            assert row.max_abs_diff is not None


def test_axes_that_do_nothing_are_called_so(
    swept: tuple[Config, SweepRecord, list[str]],
) -> None:
    _, record, _ = swept
    effects = {(one.axis, one.value.split()[0]): one.effect for one in record.axes}
    workspace = effects[("cuda.cudnn_conv_use_max_workspace", "0")]
    assert workspace.startswith("no measurable effect")
    assert effects[("providers", "CUDA")].startswith("not measured: CUDA cannot start")


def test_progress_tells_who_is_in_the_race(
    swept: tuple[Config, SweepRecord, list[str]],
) -> None:
    _, _, steps = swept
    assert any("in the race, ahead: " in step for step in steps)
    assert steps[-1] == "done"


def test_the_record_is_kept_twice_and_read_back(
    swept: tuple[Config, SweepRecord, list[str]], tmp_path: Path
) -> None:
    config, record, _ = swept
    path = keep_sweep(record, config)
    assert path.name.startswith("ort_bench_")
    newest = config.records_dir / "ort_bench.json"
    assert newest.read_bytes() == path.read_bytes()
    assert not newest.is_symlink()
    assert SweepRecord.read(newest) == record
    assert json.loads(newest.read_text())["schema"] == "ort_bench/1"
    assert keep_sweep(record, config, tmp_path / "x.json") == tmp_path / "x.json"


def test_a_finished_sweep_leaves_no_trials(swept: tuple[Config, SweepRecord, list[str]]) -> None:
    config, record, _ = swept
    assert record.resumed_trials == 0
    assert not (config.records_dir / TRIALS_NAME).exists()


def test_an_interrupted_sweep_goes_on_where_it_was(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep_race.measure_finalists

    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_race, "measure_finalists", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, SweepRequest())
    kept = (config.records_dir / TRIALS_NAME).read_text().splitlines()
    assert kept
    monkeypatch.setattr(sweep_race, "measure_finalists", whole)
    steps: list[str] = []
    record = run_sweep(config, SweepRequest(), progress=lambda _share, what: steps.append(what))
    assert record.resumed_trials == len(kept)
    assert not any(step.startswith("racing") for step in steps)


class DeadlyRequest(EngineRequest):
    """Ends the process that receives it, as an abort inside ONNX Runtime would."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.abort, ()


def test_a_setting_whose_load_kills_the_worker_costs_its_own_row_and_no_other(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, whole = sweep_arms.make_request, sweep_race.measure_finalists

    def make(base: EngineRequest, options: SweepOptions, batch_size: int) -> EngineRequest:
        made = plain(base, options, batch_size)
        deadly = "intra_op_num_threads" in options.changes()
        return DeadlyRequest(**vars(made)) if deadly else made

    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_arms, "make_request", make)
    monkeypatch.setattr(sweep_race, "measure_finalists", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, SweepRequest())
    kept = (config.records_dir / TRIALS_NAME).read_text()
    killed = kept.count("SIGABRT")
    assert killed
    monkeypatch.setattr(sweep_race, "measure_finalists", whole)
    steps: list[str] = []
    record = run_sweep(config, SweepRequest(), progress=lambda _share, what: steps.append(what))
    assert not any(step.startswith("checking answers") for step in steps)
    assert record.resumed_trials == len(kept.splitlines())
    assert [row.number for row in record.rows] == list(range(1, len(record.rows) + 1))
    dead = [row for row in record.rows if "SIGABRT" in row.status]
    assert len(dead) == killed
    assert all(row.status.startswith("unavailable: sweep: the worker process") for row in dead)
    assert any(row.has_figure for row in record.rows)


def test_fresh_forgets_an_interrupted_sweep(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    TrialBook(path).save(Trial(key="a", kind="pruned", pruned_at=2))
    assert TrialBook(path).race("a") is not None
    assert TrialBook(path, fresh=True).race("a") is None
    assert not path.exists()


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    TrialBook(path).save(Trial(key="a", kind="survived", times_ms=(1.0,), default_ms=(1.0,)))
    path.write_text(path.read_text() + '{"key": "b", "kin')
    book = TrialBook(path)
    assert book.race("a") is not None
    assert book.race("b") is None


def test_a_candidate_that_answers_otherwise_is_not_timed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = sweep_race.check_candidate
    seen: list[int] = []

    def refuse_second(*args: object, **options: object) -> tuple[float, str | None]:
        seen.append(1)
        return (0.5, "a probability moved") if len(seen) == 2 else plain(*args, **options)

    monkeypatch.setattr(sweep_race, "check_candidate", refuse_second)
    record = run_sweep(config, SweepRequest())
    refused = [row for row in record.rows if "does not answer alike" in row.status]
    assert len(refused) == 1
    assert refused[0].p50_ms is None
    assert record.verdict == "pass" or record.verdict == "inconclusive"


def test_a_default_that_answers_otherwise_fails_and_nothing_is_timed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_race, "check_candidate", lambda *_: (0.5, "a probability moved"))
    record = run_sweep(config, SweepRequest())
    assert (record.verdict, record.exit_code) == ("fail", 3)
    assert record.recommended is None
    assert not any(row.has_figure for row in record.rows)


def test_too_little_time_is_inconclusive_and_recommends_no_noise(config: Config) -> None:
    record = run_sweep(config, SweepRequest(budget_s=0.001))
    assert (record.verdict, record.exit_code) == ("inconclusive", 4)
    assert "Inconclusive" in record.finding
    assert record.recommended is not None
    assert record.recommended.is_default


def race(folder: Path, *times_ms: tuple[float, ...]) -> RaceResult:
    """How a race ended whose finalists, the default first, took these times."""
    request = EngineRequest("onnx", folder / "m.onnx")
    arms = [
        Arm(row, 1, SweepOptions(intra_op_num_threads=row), request, None, f"{row}")
        for row in range(1, len(times_ms) + 1)
    ]
    book = TrialBook(folder / TRIALS_NAME, fresh=True)
    for arm, times in zip(arms, times_ms, strict=True):
        book.save(Trial(key=arm.key, kind="final", times_ms=times, default_ms=times_ms[0]))
    return make_result(arms, arms[0], book, margin_pct=2, wall_s=1)


def test_a_default_that_is_not_proven_slower_stays_and_a_gain_always_has_an_interval(
    tmp_path: Path,
) -> None:
    short = race(tmp_path, (2.0, 1.0), (1.0, 0.9))
    assert (short.best_row, short.unclear, short.recommended_row) == (2, (1,), 1)
    proven = race(tmp_path, (2.0,) * 12, (1.0,) * 12)
    assert (proven.best_row, proven.unclear, proven.recommended_row) == (2, (), 2)
    gain, interval = speedup_interval((2.0, 1.0), (1.0, 0.9), fewest=2)
    assert interval is not None
    assert interval[0] < gain < interval[1]


STEADY, SLOW = (2.0,) * 20, (3.0,) * 20
UNSURE = (1.6, 2.5) * 10  # 0.1 % behind the steady one, give or take ten


def test_a_finalist_that_may_be_faster_than_the_default_leaves_the_sweep_inconclusive(
    tmp_path: Path,
) -> None:
    behind = tuple(1.001 * one for one in UNSURE)
    alone, beside_slow = race(tmp_path, STEADY, behind), race(tmp_path, STEADY, behind, SLOW)
    for result in (alone, beside_slow):
        assert (result.best_row, result.unclear) == (1, (2,))
        assert not result.is_decided
    assert race(tmp_path, STEADY, SLOW, SLOW).is_decided


def test_what_is_unclear_beside_the_fastest_matters_where_it_is_the_default(
    tmp_path: Path,
) -> None:
    ahead = tuple(0.999 * one for one in UNSURE)
    open_still = race(tmp_path, STEADY, ahead, SLOW)
    assert (open_still.best_row, open_still.unclear) == (2, (1,))
    assert not open_still.is_decided
    other = race(tmp_path, SLOW, STEADY, tuple(1.001 * one for one in UNSURE))
    assert (other.best_row, other.unclear, other.is_decided) == (2, (3,), True)


def test_a_model_of_fixed_batch_is_measured_at_that_batch(config: Config) -> None:
    write_onnx(config.export_dir / "m.onnx", batch=2)
    record = run_sweep(config, SweepRequest(batch=(1,)))
    assert {row.batch_size for row in record.rows if row.has_figure} == {2}
    others = {row.status for row in record.rows if row.batch_size == 1}
    assert others == {"unavailable: the model's batch size is fixed at 2"}


def test_the_objective_chooses_the_batch(config: Config) -> None:
    chosen = {
        objective: run_sweep(config, SweepRequest(batch=(1, 8), objective=objective)).best
        for objective in ("p50", "throughput")
    }
    assert chosen["p50"] is not None
    assert chosen["p50"].batch_size == 1
    assert chosen["throughput"] is not None
    assert chosen["throughput"].batch_size == 8


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (SweepRequest(objective="p99"), ParameterError, "unknown objective 'p99'"),
        (SweepRequest(batch=(0,)), ParameterError, "--batch: got 0"),
        (SweepRequest(budget_s=0), ParameterError, "--budget: got 0"),
        (SweepRequest(model=Path("/nowhere/m.onnx")), ModelError, "no such file"),
    ],
)
def test_bad_input_is_refused_before_any_time_is_spent(
    config: Config, request_: SweepRequest, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_sweep(config, request_)


def test_notebook_parameters_become_a_request() -> None:
    assert SweepRequest(model="m.onnx", batch=[1, 2], fresh=True) == SweepRequest(
        model=Path("m.onnx"), batch=(1, 2), fresh=True
    )


def test_the_tolerance_knows_the_arithmetic() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 5)).astype(np.float32)
    reference = softmax(logits)
    logits[:, 0] += 0.01
    shifted = softmax(logits)
    limits = ParitySection()
    difference, reason = check_candidate(reference, shifted, limits, "float32")
    assert 1e-3 < difference < 1e-2
    assert reason is not None
    assert check_candidate(reference, shifted, limits, "tf32")[1] is None
    assert arithmetic_of("float32", tf32=True) == "tf32"
    assert arithmetic_of("float16", tf32=True) == "float16"


def test_a_graph_whose_optimization_ends_the_process_has_no_digest(tmp_path: Path) -> None:
    class DeadlyRequest(EngineRequest):
        def __reduce__(self) -> tuple[object, ...]:
            return os.abort, ()

    model = write_onnx(tmp_path / "m.onnx")
    with Station("t") as station:
        assert digest_graph(station, DeadlyRequest("onnx", model)) is None
        assert digest_graph(station, EngineRequest("onnx", model)) is not None
