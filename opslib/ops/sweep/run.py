"""The sweep: which ONNX Runtime settings serve this model fastest on this host?

For each batch size: every combination that is a session of its own is checked against the model
as written, raced, and the finalists are measured again in fresh processes. The fastest, what is
tied with it and the simplest of those go into the record; so does "the default is as good".
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from opslib.core.config import Config
from opslib.core.errors import DeadlineError, GateFailedError, ParameterError
from opslib.core.host import host_facts
from opslib.core.language import mark, tr
from opslib.core.lineage import package_versions, record_lineage
from opslib.core.verdicts import exit_code_of
from opslib.inference.engine import EngineRequest
from opslib.inference.facts import ModelFacts, describe_inputs, describe_model
from opslib.inference.onnx_engine import digest_optimized_graph
from opslib.ops.bench.request import BenchRequest
from opslib.ops.bench.setup import BenchSetup, choose_img_size, prepare_bench
from opslib.ops.sweep.arms import Arm, Line, make_arms, make_request
from opslib.ops.sweep.heats import run_heats
from opslib.ops.sweep.race import Course
from opslib.ops.sweep.record import (
    BatchResult,
    Best,
    Recommended,
    SweepOptions,
    SweepRecord,
    SweepRow,
)
from opslib.ops.sweep.request import SweepRequest
from opslib.ops.sweep.rows import describe_axes, make_result, make_row, sum_up_sweep
from opslib.ops.sweep.space import SweepHost, find_sweep_host, list_options
from opslib.ops.sweep.trials import TRIALS_NAME, TrialBook
from opslib.telling.operation import Progress
from opslib.timing.disturbance import watch_disturbance
from opslib.timing.lock import hold_timing_lock
from opslib.timing.rounds import Deadline
from opslib.timing.station import Station
from opslib.timing.workers import MeasureError

OBJECTIVES = ("throughput", "p50")
RECORD_NAME = "ort_bench"


@dataclass(frozen=True)
class _Sweep:
    """One sweep under way, with nothing left open."""

    config: Config
    setup: BenchSetup
    objective: str
    station: Station
    host: SweepHost
    model: ModelFacts
    img_size: int
    batch_sizes: tuple[int, ...]
    lines: tuple[Line, ...]
    arms: tuple[Arm, ...]
    book: TrialBook
    deadline: Deadline
    report: Callable[[str], None]

    def rows(
        self, results: Sequence[BatchResult] = (), stopped: str | None = None
    ) -> tuple[SweepRow, ...]:
        tied = frozenset(row for result in results for row in result.tie_set)
        by_row = {arm.row: arm for arm in self.arms}
        return tuple(make_row(line, by_row, self.book, tied, stopped) for line in self.lines)


def run_sweep(
    config: Config, request: SweepRequest, *, progress: Progress = lambda _share, _what: None
) -> SweepRecord:
    """Return the record of a sweep; trials are kept on the way, nothing else is written.

    The verdict is `fail` where the default does not answer like the model as written,
    `inconclusive` where it cannot be told whether the default is as good as the fastest. `progress`
    is told the share of the budget that is spent (0..1) and what is being done. Raises UsageError:
    the request cannot be measured, or this host can run none of it.
    """
    setup, objective = _prepare(config, request)
    results: list[BatchResult] = []
    failure: str | None = None
    with (
        hold_timing_lock("a sweep", providers=("CUDA", "CPU")),
        watch_disturbance(gpu=True) as watch,
        Station("sweep") as station,
    ):
        sweep = _explore(config, setup, objective, request.fresh, station, progress)
        try:
            for index, size in enumerate(sweep.batch_sizes):
                share_s = sweep.deadline.left_s / (len(sweep.batch_sizes) - index)
                results.append(_run_batch(sweep, size, share_s))
        except GateFailedError as error:
            failure = str(error)
    sweep.book.finish()
    progress(1.0, "done")
    concluded = _refuse(sweep, failure) if failure else _conclude(sweep, results)
    margin_pct, sizes = config.sweep.margin_pct, [one.batch_size for one in results]
    return SweepRecord(
        exit_code=exit_code_of(concluded["verdict"], skipped=bool(setup.images.skipped)),
        lineage=record_lineage(),
        model=sweep.model,
        inputs=describe_inputs(setup.images, config.root),
        img_size=sweep.img_size,
        objective=objective,
        seed=config.bench.seed,
        budget_s=setup.budget_s,
        wall_s=round(sweep.deadline.spent_s, 3),
        margin_pct=margin_pct,
        resumed_trials=sweep.book.resumed,
        disturbance=watch.result(),
        batches=tuple(results),
        axes=describe_axes(concluded["rows"], sizes, margin_pct),
        **concluded,
    )


def keep_sweep(record: SweepRecord, config: Config, path: Path | None = None) -> Path:
    """Write the record to `path`, by default `{exp_dir}/reports/ort_bench_<UTC>.json` with a
    copy beside it as `ort_bench.json`; return where it lies."""
    return record.write(path) if path else record.write_dated(config.records_dir, RECORD_NAME)


def _prepare(config: Config, request: SweepRequest) -> tuple[BenchSetup, str]:
    section = config.sweep
    objective = request.objective or section.objective
    if objective not in OBJECTIVES:
        raise ParameterError(
            f"--objective: unknown objective {objective!r}; expected {' or '.join(OBJECTIVES)}"
        )
    asked = BenchRequest(
        engine="onnx",
        model=request.model,
        inputs=request.inputs,
        batch=request.batch or section.batch,
        budget_s=section.budget_s if request.budget_s is None else request.budget_s,
        providers="CUDA,CPU",
    )
    return prepare_bench(config, asked), objective


def _explore(
    config: Config,
    setup: BenchSetup,
    objective: str,
    fresh: bool,
    station: Station,
    progress: Progress,
) -> _Sweep:
    """Find out what this host and model can do, and which combinations are the same session."""
    deadline = Deadline(setup.budget_s)
    progress(0.0, "finding out which settings differ")
    base = make_request(setup.engines["onnx"], SweepOptions(), setup.batch_sizes[0])
    host = station.call(find_sweep_host)
    facts = station.describe(base)
    model = describe_model(base, facts)
    img_size = choose_img_size(setup, {"onnx": facts})
    fixed = facts.input_shape[0]
    sizes = tuple(sorted({*setup.batch_sizes, *([fixed] if fixed else [])}))
    graphs: dict[str, str | None] = {}

    def digest(options: SweepOptions) -> str | None:
        one = make_request(base, options, fixed or sizes[0])
        shaping = {"prefer_nhwc": options.cuda.get("prefer_nhwc", 0)} if host.has_cuda else {}
        asked = repr((options.providers, options.graph_optimization_level, shaping))
        if asked not in graphs:
            graphs[asked] = digest_graph(station, one)
        return graphs[asked]

    versions = package_versions()
    lines, arms = make_arms(
        list_options(config.sweep, host),
        sizes,
        host,
        base,
        digest_graph=digest,
        identity=(
            model.sha256,
            host_facts().fingerprint,
            versions.get("onnxruntime-gpu") or versions.get("onnxruntime", ""),
            setup.images.sha256,
            str(img_size),
            config.preprocess.function,
        ),
        fixed_batch=fixed,
    )

    def report(what: str) -> None:
        progress(min(1.0, deadline.spent_s / setup.budget_s), what)

    timed = (fixed,) if fixed else sizes
    book = TrialBook(config.records_dir / TRIALS_NAME, fresh=fresh)
    known = (config, setup, objective, station, host, model, img_size, timed, lines, arms, book)
    return _Sweep(*known, deadline, report)


def digest_graph(station: Station, request: EngineRequest) -> str | None:
    """Return the digest of the optimized model; see `digest_optimized_graph`. None, too, where
    optimizing it ended the process."""
    try:
        return station.call(digest_optimized_graph, request)
    except (MeasureError, DeadlineError):
        return None


def _run_batch(sweep: _Sweep, batch_size: int, budget_s: float) -> BatchResult:
    started, section = time.monotonic(), sweep.config.sweep
    images = sweep.setup.images.take(max(batch_size, section.parity_images))
    course = Course(
        config=sweep.config,
        work=replace(sweep.setup.workload(sweep.img_size), names=tuple(map(str, images))),
        station=sweep.station,
        book=sweep.book,
        rng=np.random.default_rng(sweep.config.bench.seed),
        report=sweep.report,
        on_card=sweep.host.has_cuda,
    )
    arms = [arm for arm in sweep.arms if arm.batch_size == batch_size]
    default = next(arm for arm in arms if not arm.options.changes())
    run_heats(course, arms, default, budget_s)
    wall_s = time.monotonic() - started
    result = make_result(arms, default, sweep.book, section.margin_pct, wall_s)
    return BatchResult(batch_size=batch_size, **dict(result))


def _refuse(sweep: _Sweep, failure: str) -> dict[str, Any]:
    return {
        "verdict": "fail",
        "finding": tr(
            "The default does not answer like the model as written: {failure}. Nothing was timed.",
            failure=failure,
        ),
        "rows": sweep.rows(stopped=mark("the default failed its parity check")),
        "best": None,
        "recommended": None,
    }


def _conclude(sweep: _Sweep, results: Sequence[BatchResult]) -> dict[str, Any]:
    """What the record says of the fastest and the recommended, and of how sure that is."""
    rows, chosen = sweep.rows(results), results[0]
    if sweep.objective == "throughput":
        chosen = max(results, key=lambda one: rows[one.best_row - 1].throughput_img_s or 0.0)
    top, simplest = rows[chosen.best_row - 1], rows[chosen.recommended_row - 1]
    recommended = Recommended(
        row=simplest.number,
        batch_size=simplest.batch_size,
        options=simplest.options,
        changes=simplest.options.changes(),
        gain=chosen.gain,
        gain_ci95=chosen.gain_ci95,
        tie_set=chosen.tie_set,
    )
    decided = chosen.is_decided
    margin_pct = sweep.config.sweep.margin_pct
    return {
        "verdict": "pass" if decided else "inconclusive",
        "finding": sum_up_sweep(recommended, chosen, rows, margin_pct, decided=decided),
        "rows": rows,
        "best": Best(
            row=top.number,
            batch_size=top.batch_size,
            options=top.options,
            p50_ms=top.p50_ms or 0.0,
            throughput_img_s=top.throughput_img_s or 0.0,
        ),
        "recommended": recommended,
    }
