"""What a benchmark leaves behind: every row with its raw values, its evidence and its lineage."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, Self

from opslib.core.formatting import format_ms
from opslib.core.language import tr, tr_many
from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.sections import BenchSection
from opslib.core.verdicts import Verdict
from opslib.inference.facts import InputFacts, ModelFacts
from opslib.inference.parity import ParityResult
from opslib.timing.blocks import Boundary, StagesMs
from opslib.timing.disturbance import Disturbance
from opslib.timing.paired import Comparison
from opslib.timing.stats import trimmed_degrees

RowStatus = Literal["measured", "inconclusive", "unavailable"]
CLEAR_PCT = 10.0


class LatencyMs(Part):
    """Latency of one call in milliseconds. `p50` is the median of the block medians and `ci95` the
    95 % interval of the long-run median; `p90` and `p99` are null where `n` samples do not support
    them."""

    p50: float
    p90: float | None
    p99: float | None
    ci95: tuple[float, float] | None
    n: int


class Relative(Part):
    """A latency as a multiple of the frozen reference network's, timed in the same rounds in the
    same process, by the same engine with the same options, at the same batch size and image size.

    `ratio` is the trimmed mean of the rounds' `log_ratios`, transformed back; `ci95` its 95 %
    interval, Student's t over the rounds; `reference_ms` the reference's median latency.
    `disturbed_log_ratios` are those of rounds left out because a thread waited for a CPU.
    """

    ratio: float
    ci95: tuple[float, float]
    half_width_pct: float
    reference_ms: float
    log_ratios: tuple[float, ...]
    disturbed_log_ratios: tuple[float, ...] = ()


class BenchRow(Part):
    """One engine at one batch size within one boundary.

    `inference` starts with a preprocessed float array in host memory and ends with logits in host
    memory, for both engines; `end_to_end` starts with file names. `provider` is the one in force.
    `first_run_ms` is the median time of the first answer after loading, of inference alone.
    `raw_ms` holds the milliseconds of every timed call that the figures rest on, a tuple for each
    block; `disturbed_raw_ms` those of blocks left out because a thread waited for a CPU.
    """

    engine: Literal["onnx", "torch"]
    provider: str
    requested_providers: str
    batch_size: int
    threads: int
    boundary: Boundary
    status: RowStatus
    reason: str | None = None
    latency_ms: LatencyMs | None = None
    half_width_pct: float | None = None
    throughput_img_s: float | None = None
    throughput_ci95_img_s: tuple[float, float] | None = None
    stages_ms: StagesMs | None = None
    peak_rss_bytes: int | None = None
    first_run_ms: float | None = None
    relative: Relative | None = None
    run_delay_pct: float | None = None
    options: dict[str, str] = {}
    raw_ms: tuple[tuple[float, ...], ...] = ()
    disturbed_raw_ms: tuple[tuple[float, ...], ...] = ()

    @property
    def log_ratio(self) -> tuple[float, float]:
        """The logarithm of the ratio to the reference, and its squared standard error within this
        run. Raises ValueError: the row has none."""
        if self.relative is None:
            raise ValueError("this row was not held against a reference network")
        from scipy.special import stdtrit

        low, high = map(math.log, self.relative.ci95)
        error = (high - low) / 2 / float(stdtrit(self.ratio_degrees, 0.975))
        return math.log(self.relative.ratio), max(1e-8, error**2)

    @property
    def ratio_degrees(self) -> int:
        """Degrees of freedom of that standard error; 0 where there is no ratio."""
        return trimmed_degrees(len(self.relative.log_ratios)) if self.relative else 0

    @property
    def p50_ms(self) -> float | None:
        """Median latency in milliseconds, where it was timed."""
        return self.latency_ms.p50 if self.latency_ms else None

    @property
    def boundary_name(self) -> str:
        """The boundary in words."""
        return self.boundary.replace("_", " ")

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What makes two rows comparable: engine, provider, batch size, boundary."""
        return (self.engine, self.provider, self.batch_size, self.boundary)

    def block_medians_ms(self) -> list[float]:
        """Return the median latency in milliseconds of each block."""
        return [statistics.median(block) for block in self.raw_ms if block]

    def slim(self) -> Self:
        """Return the row with the median of each block in place of its calls."""
        medians = tuple((median,) for median in self.block_medians_ms())
        return self.model_copy(update={"raw_ms": medians, "disturbed_raw_ms": ()})


class SpeedComparison(Part):
    """ONNX Runtime against Torch at one batch size, measured in interleaved rounds."""

    batch_size: int
    comparison: Comparison

    @property
    def direction(self) -> Literal["faster", "slower", "alike"] | None:
        """Which way it goes, as far as that is beyond doubt: by the verdict, or where the interval
        is too wide for a figure but ends `CLEAR_PCT` away from no difference; None where open."""
        low, high = self.comparison.speedup_ci95
        said, clear = self.comparison.verdict, 1 + CLEAR_PCT / 100
        if said == "no measurable change":
            return "alike"
        if said == "faster" or low >= clear:
            return "faster"
        return "slower" if said == "slower" or high <= 1 / clear else None


class BenchRecord(Record):
    """A benchmark, whole: conditions, gates, rows, comparisons, noise floor and verdict."""

    schema_name = "bench"

    verdict: Verdict
    finding: str
    exit_code: int
    lineage: Lineage
    model: ModelFacts | None
    checkpoint: ModelFacts | None
    inputs: InputFacts
    preprocess: str
    img_size: int
    seed: int
    budget_s: float
    wall_s: float
    target_half_width_pct: float
    disturbance: Disturbance
    parity: ParityResult | None
    noise_floor: Comparison | None
    comparisons: tuple[SpeedComparison, ...]
    rows: tuple[BenchRow, ...]
    reference_sha256: str | None = None

    def slim(self) -> Self:
        """Return the record with the median of each block in place of its calls."""
        return self.model_copy(update={"rows": tuple(row.slim() for row in self.rows)})


ENGINE_NAMES = {"onnx": "ONNX Runtime", "torch": "Torch"}


def sum_up(
    rows: Sequence[BenchRow],
    comparisons: Sequence[SpeedComparison],
    parity: ParityResult | None,
    verdict: Verdict,
    section: BenchSection,
) -> str:
    """Return the benchmark's finding as one or two sentences with their uncertainty."""
    if parity is not None and not parity.passed:
        return tr(
            "The two engines do not answer alike: {reason}. Nothing was timed.",
            reason=parity.reason,
        )
    timed = [row for row in rows if row.boundary == "inference" and row.latency_ms]
    if not timed:
        reasons = "; ".join(dict.fromkeys(map(tr, (row.reason or "" for row in rows))))
        if all(row.status == "unavailable" for row in rows):
            return tr("Nothing could run: {reasons}.", reasons=reasons)
        return tr("Nothing was measured: {reasons}.", reasons=reasons)
    parts = [_describe_engine(timed), _describe_comparison(comparisons)]
    if verdict == "inconclusive":
        wide = sum(row.status == "inconclusive" for row in rows)
        if wide:
            parts.append(
                tr_many(
                    "Inconclusive: {count} ratio of {rows} to the reference network missed "
                    "±{pct:g} %.",
                    "Inconclusive: {count} ratios of {rows} to the reference network missed "
                    "±{pct:g} %.",
                    wide,
                    rows=len(rows),
                    pct=section.target_half_width_pct,
                )
            )
    return " ".join(part for part in parts if part)


def _describe_engine(timed: Sequence[BenchRow]) -> str:
    engine = "onnx" if any(row.engine == "onnx" for row in timed) else "torch"
    rows = [row for row in timed if row.engine == engine]
    first = min(rows, key=lambda row: row.batch_size)
    best = max(rows, key=lambda row: row.throughput_img_s or 0.0)
    if first.latency_ms is None or best.throughput_img_s is None:
        return ""
    width = f" (±{first.half_width_pct:.1f} %)" if first.half_width_pct is not None else ""
    alone = first.batch_size == 1
    count = tr("one image") if alone else tr("a batch of {size}", size=first.batch_size)
    took = f"{format_ms(first.latency_ms.p50)} ms{width}"
    if first.relative is not None:
        took = tr(
            "{took}, {ratio:.2f} × the reference network (±{pct:.1f} %),",
            took=took,
            ratio=first.relative.ratio,
            pct=first.relative.half_width_pct,
        )
    return tr(
        "{engine} on {provider} answers {count} in {took} and reaches {rate:,.0f} img/s at batch "
        "{batch}.",
        engine=ENGINE_NAMES[engine],
        provider=first.provider,
        count=count,
        took=took,
        rate=best.throughput_img_s,
        batch=best.batch_size,
    )


def _describe_comparison(comparisons: Sequence[SpeedComparison]) -> str:
    if not comparisons:
        return ""
    decided = [one for one in comparisons if one.direction in ("faster", "slower")]
    if not decided:
        if any(one.direction is None for one in comparisons):
            return tr("Whether it is faster than Torch is undecided.")
        return tr("No measurable difference to Torch was found.")
    speedups = [f"{one.comparison.speedup:.2f}" for one in decided]
    low, high = min(speedups, key=float), max(speedups, key=float)
    span = low if low == high else tr("{low} to {high}", low=low, high=high)
    if len(decided) == len(comparisons):
        return tr("It runs at {span} times the speed of Torch at every batch size.", span=span)
    sizes = ", ".join(str(one.batch_size) for one in decided)
    return tr(
        "It runs at {span} times the speed of Torch at batch {sizes}.", span=span, sizes=sizes
    )
