"""The benchmark: gates first, then paired comparisons, then each configuration alone.

Order of work within the time budget: parity of the two engines; an A/A comparison (the noise
floor) and ONNX Runtime against Torch, in interleaved rounds; then absolute latency, each engine
alone in its own process, in separated blocks taken in random order, until every interval is
narrow enough or the budget ends.
"""

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from opslib.core.config import Config
from opslib.core.errors import (
    ExitCode,
    GateFailedError,
    ModelError,
    OpsError,
    UnavailableError,
)
from opslib.core.formatting import stamp
from opslib.core.language import mark
from opslib.core.lineage import record_lineage
from opslib.core.verdicts import Verdict, exit_code_of
from opslib.inference.engine import EngineFacts, requested_providers
from opslib.inference.facts import ModelFacts, describe_inputs, describe_model
from opslib.inference.parity import ParityResult, check_parity
from opslib.inference.reference import SHA256 as REFERENCE_SHA256
from opslib.inference.reference import write_reference
from opslib.ops.bench.finding import sum_up
from opslib.ops.bench.record import BenchRecord, BenchRow, SpeedComparison
from opslib.ops.bench.request import BenchRequest
from opslib.ops.bench.rows import make_cells, make_row, measure_cells
from opslib.ops.bench.setup import BenchSetup, choose_img_size, prepare_bench
from opslib.telling.operation import Progress
from opslib.timing.disturbance import watch_disturbance
from opslib.timing.lock import hold_timing_lock
from opslib.timing.paired import Comparison
from opslib.timing.rounds import Deadline
from opslib.timing.station import BadAnswerError, Side, Station, Workload, compare_stations

COMPARISON_SHARE = 0.2
PARITY_BATCH = 8

_FAILURES = (GateFailedError, BadAnswerError)


@dataclass(frozen=True)
class _Bench:
    """One benchmark under way."""

    setup: BenchSetup
    stations: dict[str, Station]
    work: Workload
    deadline: Deadline
    progress: Progress

    def report(self, what: str) -> None:
        self.progress(min(1.0, self.deadline.spent_s / self.setup.budget_s), what)


def run_bench(
    config: Config, request: BenchRequest, *, progress: Progress = lambda _share, _what: None
) -> BenchRecord:
    """Return the record of a benchmark; nothing is written.

    The verdict is `fail` where parity is broken or a batch size does not get a classifier's answer;
    `inconclusive` where anything else that was asked for could not be measured (but for batch sizes
    that the model does not take), where a ratio to the reference network is less certain than the
    target at the end of the budget, or where it is open which engine is faster; else `pass`.
    Milliseconds decide nothing.

    `progress`: told the share of the budget that is spent (0..1) and what is being done. Raises
    UsageError: the request cannot be measured; see `prepare_bench`; BusyError: another timed
    operation runs on this host.
    """
    setup = prepare_bench(config, request)
    deadline = Deadline(setup.budget_s)
    providers = requested_providers(config, request.providers)
    with (
        hold_timing_lock("a benchmark", providers=providers),
        watch_disturbance(gpu=True) as watch,
        ExitStack() as stack,
    ):
        stations = {name: stack.enter_context(Station(name)) for name in setup.engines}
        progress(0.0, "loading the engines")
        facts, problems = _describe(setup, stations)
        models = _describe_models(setup, facts)
        img_size = choose_img_size(setup, facts) if facts else 0
        bench = _Bench(setup, stations, setup.workload(img_size), deadline, progress)
        parity = _check_parity(bench, facts)
        failed = parity is not None and not parity.passed
        stopped = GateFailedError(mark("parity failed")) if failed else None
        references = Path(stack.enter_context(TemporaryDirectory(prefix="pillops-reference-")))
        for name in facts:
            write_reference(references, name)
        cells = make_cells(setup, facts, problems, stopped, references)
        noise_floor, comparisons = (None, ()) if stopped else _compare(bench, facts)
        measure_cells(
            [cell for cell in cells if cell.reason is None],
            stations,
            bench.work,
            deadline=deadline,
            target_half_width_pct=config.bench.target_half_width_pct,
            rng=random.Random(config.bench.seed),  # noqa: S311 (order of blocks, no secret)
            report=bench.report,
        )
        rows = tuple(row for cell in cells for row in make_row(cell, config.bench))
    missing = [cell.missing for cell in cells if cell.missing is not None]
    verdict, exit_code = _decide(rows, comparisons, missing, setup)
    told = [one for one in missing if verdict != "fail" or isinstance(one, _FAILURES)]
    if models != _describe_models(setup, facts):
        raise ModelError("a model's file changed while it was measured; measure it again")
    progress(1.0, "done")
    return BenchRecord(
        verdict=verdict,
        finding=sum_up(rows, comparisons, parity, verdict, config.bench, list(map(str, told))),
        exit_code=exit_code,
        lineage=record_lineage(),
        model=models.get("onnx"),
        checkpoint=models.get("torch"),
        inputs=describe_inputs(setup.images, config.root),
        preprocess=config.preprocess.function,
        img_size=img_size,
        seed=config.bench.seed,
        budget_s=setup.budget_s,
        wall_s=round(deadline.spent_s, 3),
        target_half_width_pct=config.bench.target_half_width_pct,
        disturbance=watch.result(),
        parity=parity,
        noise_floor=noise_floor,
        comparisons=comparisons,
        rows=rows,
        reference_sha256=REFERENCE_SHA256,
    )


def keep_bench(record: BenchRecord, config: Config, path: Path | None = None) -> Path:
    """Write the record to `path`, by default `{exp_dir}/reports/bench_<UTC>.json`; return it."""
    return record.write(path or config.records_dir / f"bench_{stamp()}.json")


def _describe(
    setup: BenchSetup, stations: dict[str, Station]
) -> tuple[dict[str, EngineFacts], dict[str, OpsError]]:
    """Load each engine once: what is really running, or why it cannot on this host."""
    facts: dict[str, EngineFacts] = {}
    problems: dict[str, OpsError] = {}
    for name, station in stations.items():
        try:
            facts[name] = station.describe(setup.engines[name])
        except UnavailableError as error:
            problems[name] = error
    classes = {name: fact.num_classes for name, fact in facts.items() if fact.num_classes}
    if len(set(classes.values())) > 1:
        raise ModelError(
            f"{setup.engines['torch'].path} has {classes['torch']} classes, "
            f"{setup.engines['onnx'].path} has {classes['onnx']}; they are not the same network"
        )
    return facts, problems


def _describe_models(setup: BenchSetup, facts: dict[str, EngineFacts]) -> dict[str, ModelFacts]:
    return {name: describe_model(setup.engines[name], fact) for name, fact in facts.items()}


def _check_parity(bench: _Bench, facts: dict[str, EngineFacts]) -> ParityResult | None:
    if set(facts) != {"onnx", "torch"}:
        return None
    bench.report("checking that both engines answer alike")
    fixed = facts["onnx"].input_shape[0]
    answers = {}
    for engine in ("torch", "onnx"):
        batch_size = fixed if engine == "onnx" and fixed else PARITY_BATCH
        bench.stations[engine].load(bench.setup.at_batch(engine, batch_size), bench.work)
        answers[engine] = bench.stations[engine].answer(bench.setup.config.parity.samples)
        bench.stations[engine].unload()
    half = facts["onnx"].input_dtype == "float16"
    return check_parity(
        answers["torch"], answers["onnx"], bench.setup.config.parity, half_precision=half
    )


def _compare(
    bench: _Bench, facts: dict[str, EngineFacts]
) -> tuple[Comparison | None, tuple[SpeedComparison, ...]]:
    """Compare an engine with itself, then ONNX Runtime with Torch at every batch size."""
    if not facts:
        return None, ()
    fixed = facts["onnx"].input_shape[0] if "onnx" in facts else None
    sizes = [size for size in bench.setup.batch_sizes if fixed in (None, size)]
    both, first, noise_floor = len(facts) == 2, next(iter(facts)), None
    deadline = Deadline(COMPARISON_SHARE * bench.setup.budget_s)

    def share_s(due: int) -> float:
        """What each of so many comparisons may take: small batches leave time to large ones."""
        return max(0.0, deadline.left_s) / due

    if sizes:
        bench.report(f"noise floor, {first} against itself")
        with Station(f"{first} (again)") as twin:
            pair = [(first, bench.stations[first]), (first, twin)]
            noise_floor = _compare_pair(bench, pair, sizes[0], share_s(1 + len(sizes) * both))
    comparisons = []
    for done, size in enumerate(sizes if both else []):
        bench.report(f"comparing onnx with torch: batch {size}")
        pair = [(name, bench.stations[name]) for name in ("torch", "onnx")]
        comparison = _compare_pair(bench, pair, size, share_s(len(sizes) - done))
        comparisons.append(SpeedComparison(batch_size=size, comparison=comparison))
    return noise_floor, tuple(comparisons)


def _compare_pair(
    bench: _Bench, pair: Sequence[tuple[str, Station]], batch_size: int, budget_s: float
) -> Comparison:
    one, other = (
        Side(station.name, bench.setup.at_batch(name, batch_size), station)
        for name, station in pair
    )
    section = bench.setup.config.bench
    effect, seed = section.min_effect_pct, section.seed
    return compare_stations(
        one, other, bench.work, min_effect_pct=effect, budget_s=budget_s, seed=seed
    )


def _decide(
    rows: Sequence[BenchRow],
    comparisons: Sequence[SpeedComparison],
    missing: Sequence[OpsError],
    setup: BenchSetup,
) -> tuple[Verdict, int]:
    verdict: Verdict = "pass"
    if any(isinstance(error, _FAILURES) for error in missing):
        verdict = "fail"
    elif all(row.status == "unavailable" for row in rows):
        return "inconclusive", int(ExitCode.USAGE)
    elif (
        missing
        or any(row.status == "inconclusive" for row in rows)
        or any(one.direction is None for one in comparisons)
    ):
        verdict = "inconclusive"
    return verdict, exit_code_of(verdict, skipped=bool(setup.images.skipped))
