"""The sweep as served: which workers, threads and batching does the service do best with here?

Every combination is a real service of its own, loaded over HTTP at rates that do not wait for it.
Those that answer as the model as written does are raced, and the finalists are measured again in
services started anew. The best, what is tied with it and the simplest of those go into the record.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opslib.core.config import Config
from opslib.core.errors import GateFailedError
from opslib.core.host import host_facts, usable_cpus
from opslib.core.language import mark, tr
from opslib.core.lineage import package_versions, record_lineage
from opslib.core.verdicts import exit_code_of
from opslib.inference.facts import ModelFacts, describe_inputs, describe_model
from opslib.ops.bench.setup import choose_img_size
from opslib.ops.served_sweep.grid import (
    Combination,
    ServedArm,
    list_served_options,
    make_served_arms,
)
from opslib.ops.served_sweep.record import (
    ServedBest,
    ServedOptions,
    ServedRecommended,
    ServedRow,
    ServedSweepRecord,
)
from opslib.ops.served_sweep.request import ServedSweepRequest
from opslib.ops.served_sweep.rows import make_served_row, sum_up_served
from opslib.ops.served_sweep.services import Services, Subject
from opslib.ops.served_sweep.setup import ServedSetup, prepare_served
from opslib.ops.served_sweep.visits import Loader
from opslib.ops.sweep.arms import arithmetic_of
from opslib.ops.sweep.heats import run_heats
from opslib.ops.sweep.record import RaceResult, SweepOptions
from opslib.ops.sweep.rows import make_result
from opslib.ops.sweep.space import uses_tf32
from opslib.ops.sweep.trials import TrialBook
from opslib.serving.loaded import find_obstacle
from opslib.telling.operation import Progress
from opslib.timing.disturbance import watch_disturbance
from opslib.timing.lock import hold_timing_lock
from opslib.timing.rounds import Deadline
from opslib.timing.station import Station
from opslib.timing.workers import Worker

Report = Callable[[str], None]
RECORD_NAME = "served_sweep"
TRIALS_NAME = "served_sweep_trials.jsonl"
LOAD_IMAGES = 64


@dataclass(frozen=True)
class ServedSweep:
    """One sweep under way: what is raced on which track, and what has come of it."""

    setup: ServedSetup
    model: ModelFacts
    lines: tuple[Combination, ...]
    arms: tuple[ServedArm, ...]
    track: Services

    def try_out(self, deadline: Deadline) -> tuple[RaceResult | None, str]:
        """Race the arms; return how it ended, or None and why the default does not serve."""
        began_s, track = deadline.spent_s, self.track
        default = next(arm for arm in self.arms if not arm.options.changes())
        try:
            run_heats(track, self.arms, default, deadline.left_s)
        except GateFailedError as error:
            return None, str(error)
        took_s = deadline.spent_s - began_s
        return make_result(self.arms, default, track.book, track.margin_pct, took_s), ""

    def rows(
        self, result: RaceResult | None = None, stopped: str | None = None
    ) -> tuple[ServedRow, ...]:
        """Return the row of every combination."""
        tied = frozenset(result.tie_set if result else ())
        arms, goal = {arm.row: arm for arm in self.arms}, self.setup.goal
        return tuple(
            make_served_row(line, arms, self.track.book, goal, tied, stopped) for line in self.lines
        )


def run_served_sweep(
    config: Config,
    request: ServedSweepRequest,
    *,
    progress: Progress = lambda _share, _what: None,
) -> ServedSweepRecord:
    """Return the record of a sweep of the service; trials are kept on the way, nothing else is
    written.

    The verdict is `fail` where the default does not serve: it does not start, fails requests, does
    not answer like the model as written, or cannot keep its p99 within the limit at all;
    `inconclusive` where it cannot be told whether the default is as good as the best. `progress` is
    told the share of the budget that is spent (0..1) and what is being done. Raises UsageError: the
    request cannot be measured.
    """
    setup = prepare_served(config, request)
    bench = setup.bench
    with (
        hold_timing_lock("a sweep of the service", providers=config.onnx.providers),
        watch_disturbance(gpu=True) as watch,
    ):
        deadline = Deadline(bench.budget_s)

        def report(what: str) -> None:
            progress(min(1.0, deadline.spent_s / bench.budget_s), what)

        report("finding out which settings differ")
        with open_sweep(config, setup, fresh=request.fresh, report=report) as sweep:
            result, failure = sweep.try_out(deadline)
    book, late_ms = sweep.track.book, sweep.track.loader.late_ms
    book.finish()
    progress(1.0, "done")
    concluded = _conclude(sweep, result) if result else _refuse(sweep, failure)
    return ServedSweepRecord(
        exit_code=exit_code_of(concluded["verdict"], skipped=bool(bench.images.skipped)),
        lineage=record_lineage(),
        model=sweep.model,
        inputs=describe_inputs(bench.images, config.root),
        goal=setup.goal,
        seed=config.bench.seed,
        budget_s=bench.budget_s,
        wall_s=round(deadline.spent_s, 3),
        margin_pct=sweep.track.margin_pct,
        resumed_trials=book.resumed,
        sent_late_p99_ms=round(float(np.median(late_ms)), 3) if late_ms else None,
        disturbance=watch.result(),
        result=result,
        **concluded,
    )


def keep_served_sweep(record: ServedSweepRecord, config: Config, path: Path | None = None) -> Path:
    """Write the record to `path`, by default `{exp_dir}/reports/served_sweep_<UTC>.json` with a
    copy beside it as `served_sweep.json`; return where it lies."""
    return record.write(path) if path else record.write_dated(config.records_dir, RECORD_NAME)


@contextmanager
def open_sweep(
    config: Config,
    setup: ServedSetup,
    *,
    fresh: bool = False,
    report: Report = lambda _what: None,
) -> Iterator[ServedSweep]:
    """Find out what the model is and which combinations differ, and yield them with their track;
    all that it starts ends with the block. `fresh`: forget an interrupted sweep."""
    with ExitStack() as stack:
        station = stack.enter_context(Station("the model as written"))
        subject, model, unbatched = _describe_subject(config, setup, station)
        cpus = usable_cpus()
        lines, arms = make_served_arms(
            list_served_options(config.sweep, cpus),
            cpus,
            identity=_list_conditions(config, setup, subject),
            unbatched=unbatched,
        )
        images = setup.bench.images.paths[:LOAD_IMAGES]
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pillops-served-"))
        track = Services(
            config=config,
            book=TrialBook(config.records_dir / TRIALS_NAME, fresh=fresh),
            rng=np.random.default_rng(config.bench.seed),
            report=report,
            subject=subject,
            goal=setup.goal,
            station=station,
            loader=Loader(stack.enter_context(Worker("the load")), images),
            folder=Path(folder),
        )
        yield ServedSweep(setup, model, lines, arms, stack.enter_context(track))


def _describe_subject(
    config: Config, setup: ServedSetup, station: Station
) -> tuple[Subject, ModelFacts, str | None]:
    """What is served, and why no run of it may hold several requests, if so."""
    engine = setup.bench.engines["onnx"]
    facts = station.describe(engine)
    model, img_size = describe_model(engine, facts), choose_img_size(setup.bench, {"onnx": facts})
    cuda = SweepOptions(cuda=dict(config.onnx.cuda))
    subject = Subject(
        request=engine,
        sha256=model.sha256,
        kind=setup.kind,
        provider=facts.provider,
        arithmetic=arithmetic_of(facts.input_dtype, tf32=uses_tf32(cuda, facts.provider)),
        work=setup.bench.workload(img_size),
    )
    return subject, model, find_obstacle(2, facts)


def _list_conditions(config: Config, setup: ServedSetup, subject: Subject) -> list[str]:
    """What decides a figure beside the options."""
    versions = package_versions()
    varied = set(ServedOptions.model_fields)
    return [
        subject.sha256,
        str(subject.work.img_size),
        host_facts().fingerprint,
        versions.get("onnxruntime-gpu") or versions.get("onnxruntime", ""),
        setup.bench.images.sha256,
        config.preprocess.function,
        setup.goal.model_dump_json(),
        config.onnx.model_dump_json(exclude=varied),
        config.service.model_dump_json(exclude=varied),
    ]


def _refuse(sweep: ServedSweep, failure: str) -> dict[str, Any]:
    return {
        "verdict": "fail",
        "finding": tr(
            "The default does not serve: {failure}. Nothing is recommended.", failure=failure
        ),
        "rows": sweep.rows(stopped=mark("the default does not serve")),
        "best": None,
        "recommended": None,
    }


def _conclude(sweep: ServedSweep, result: RaceResult) -> dict[str, Any]:
    """What the record says of the best and the recommended, and of how sure that is."""
    rows, goal = sweep.rows(result), sweep.setup.goal
    top, simplest = rows[result.best_row - 1], rows[result.recommended_row - 1]
    recommended = ServedRecommended(
        row=simplest.number,
        options=simplest.options,
        changes=simplest.options.changes(),
        gain=result.gain,
        gain_ci95=result.gain_ci95,
        tie_set=result.tie_set,
    )
    decided = result.is_decided
    margin_pct = sweep.track.margin_pct
    return {
        "verdict": "pass" if decided else "inconclusive",
        "finding": sum_up_served(recommended, result, rows, goal, margin_pct, decided=decided),
        "rows": rows,
        "best": ServedBest(
            row=top.number, options=top.options, rate_per_s=top.rate_per_s, p99_ms=top.p99_ms
        ),
        "recommended": recommended,
    }
