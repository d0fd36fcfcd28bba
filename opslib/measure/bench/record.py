"""What a benchmark leaves behind: every row with its raw values, its evidence and its lineage."""

from __future__ import annotations

import statistics
from typing import Literal, Self

from opslib.core.formatting import format_counts
from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict
from opslib.measure.disturbance import Disturbance
from opslib.measure.paired import Comparison

Boundary = Literal["inference", "end_to_end"]
RowStatus = Literal["measured", "inconclusive", "unavailable"]


class LatencyMs(Part):
    """Latency of one call in milliseconds.

    `p50` is the median of the block medians and `ci95` the 95 % interval of the long-run median;
    `p90` and `p99` are null where `n` samples do not support them.
    """

    p50: float
    p90: float | None
    p99: float | None
    ci95: tuple[float, float] | None
    n: int


class StagesMs(Part):
    """Where an end-to-end call spends its time: medians in milliseconds for a whole batch.

    `preprocess` is decode and transform together; foreign preprocessing cannot be split.
    """

    decode: float | None
    transform: float | None
    preprocess: float
    inference: float


class BenchRow(Part):
    """One engine at one batch size within one boundary.

    `inference` starts with a preprocessed float array in host memory and ends with logits in host
    memory, for both engines; `end_to_end` starts with file names. `provider` is the one in force.
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
    run_delay_pct: float | None = None
    options: dict[str, str] = {}
    raw_ms: tuple[tuple[float, ...], ...] = ()
    disturbed_raw_ms: tuple[tuple[float, ...], ...] = ()

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


class ParityResult(Part):
    """How far two engines' softmax outputs lie apart, against the limits in force."""

    samples: int
    mse_mean: float
    mse_mean_max: float
    mse_p99: float
    mse_p99_max: float | None
    top1_mismatch_pct: float
    top1_mismatch_max_pct: float
    max_abs_diff: float
    passed: bool
    reason: str


class ModelFacts(Part):
    """Which model was measured; digest and bytes are those of the file with its sidecars."""

    name: str
    sha256: str
    size_bytes: int
    num_classes: int | None
    input_shape: tuple[int | str | None, ...]
    input_dtype: str


class InputFacts(Part):
    """Which images were read: the glob and the folder it is fixed to, how many, one digest over
    their bytes, those skipped.

    `suffixes` counts the images measured, `left_out` the files that the glob named besides.
    """

    glob: str
    folder: str | None = None
    count: int
    suffixes: dict[str, int] = {}
    left_out: dict[str, int] = {}
    sha256: str
    skipped: tuple[str, ...]

    def count_note(self, what: str = "Images measured") -> list[str]:
        """Return a sentence on the kinds of files; none for a record that does not say."""
        if not self.suffixes:
            return []
        left_out = f"; left out: {format_counts(self.left_out)}" if self.left_out else ""
        return [f"{what}: {format_counts(self.suffixes)}{left_out}."]

    def notes(self, what: str = "Images measured") -> list[str]:
        """Return what a reader must know of the images, a sentence each."""
        skipped = [f"Skipped: {'; '.join(self.skipped)}."] if self.skipped else []
        return self.count_note(what) + skipped


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

    def slim(self) -> Self:
        """Return the record with the median of each block in place of its calls."""
        return self.model_copy(update={"rows": tuple(row.slim() for row in self.rows)})
