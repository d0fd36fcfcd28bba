"""What a benchmark leaves behind: every row with its raw values, its evidence and its lineage."""

import math
import statistics
from typing import Annotated, Literal, Self

from pydantic import Field

from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict
from opslib.inference.facts import InputFacts, ModelFacts
from opslib.inference.parity import ParityResult
from opslib.timing.blocks import Boundary, StagesMs
from opslib.timing.disturbance import Disturbance, is_disturbed
from opslib.timing.paired import Comparison, Limits
from opslib.timing.related import FEWEST_ROUNDS
from opslib.timing.rounds import MIN_ROUNDS
from opslib.timing.stats import Interval, trimmed_degrees, trimmed_interval

RowStatus = Literal["measured", "inconclusive", "unavailable"]
CLEAR_PCT = 10.0


Positive = Annotated[float, Field(gt=0)]


class LatencyMs(Part):
    """Latency of one call in milliseconds. `p50` is the median of the block medians and `ci95` the
    95 % interval of the long-run median; `p90` and `p99` are null where `n` samples do not support
    them."""

    p50: Positive
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

    ratio: Positive
    ci95: tuple[Positive, Positive]
    half_width_pct: float
    reference_ms: Positive
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
        is too wide for a figure but ends `CLEAR_PCT` away from no difference; None where open.

        Below ten rounds that interval is Student's, over at least five. A comparison that was
        disturbed, or whose outcome fresh processes did not confirm, is open.
        """
        found = self.comparison
        if found.verdict != "inconclusive":
            return "alike" if found.verdict == "no measurable change" else found.verdict
        interval = _wide_interval(found)
        clear = math.log1p(CLEAR_PCT / 100)
        if interval is None:
            return None
        if interval.low >= clear:
            return "faster"
        return "slower" if interval.high <= -clear else None


def _wide_interval(found: Comparison) -> Interval | None:
    """The interval of the log ratio, where its width or few rounds are all that is against it."""
    if is_disturbed(found.run_delay_pct) or found.rounds < FEWEST_ROUNDS:
        return None
    if found.rounds < MIN_ROUNDS:
        return trimmed_interval(found.log_ratios)
    interval = Interval(*map(math.log, found.speedup_ci95))
    allowed = Limits(found.min_effect_pct).max_half_width(math.log(found.speedup))
    return interval if interval.half_width > allowed else None


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

    def model_of(self, engine: str) -> ModelFacts | None:
        """Return what this engine runs: the ONNX file or the Torch checkpoint."""
        return self.model if engine == "onnx" else self.checkpoint

    def slim(self) -> Self:
        """Return the record with the median of each block in place of its calls."""
        return self.model_copy(update={"rows": tuple(row.slim() for row in self.rows)})


ENGINE_NAMES = {"onnx": "ONNX Runtime", "torch": "Torch"}
