"""What a quantization leaves behind: every variant with its raw counts, the verdict, lineage."""

from typing import Literal, Self

from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict
from opslib.inference.facts import InputFacts, ModelFacts
from opslib.ops.bench.record import BenchRow
from opslib.timing.disturbance import Disturbance
from opslib.timing.paired import Comparison

Rule = Literal["met", "missed", "undecided"]
Proof = Literal["proven", "disproven", "inconclusive"]
Speed = Literal["faster", "slower", "unclear"]
FlipKind = Literal["lost", "gained", "other"]


class Flip(Part):
    """One image that the variant calls otherwise; confidences are softmax values 0..1. `kind` is
    `lost` (right before, wrong now), `gained`, or `other` (wrong both times, or no label is
    known)."""

    image: str
    label: str | None
    before: str
    before_confidence: float
    after: str
    after_confidence: float
    kind: FlipKind


class ClassFlips(Part):
    """Flips among the images of one class (its label, or where there is none its prediction)."""

    name: str
    count: int
    lost: int
    gained: int
    other: int


class Accuracy(Part):
    """A variant's answers against the float32 model's on the same `n` images.

    `lost` and `gained` answers turned wrong and right, `flipped` are all that changed. Without
    labels the first two, both accuracies and the drop are null: the drop is then at most the
    disagreement. `drop_ci90_pp` is the 90 % interval; `drop_max_pp` its upper end, or without
    labels the upper end of the disagreement's. Mean squared errors are of softmax outputs.
    """

    n: int
    flipped: int
    lost: int | None = None
    gained: int | None = None
    baseline_top1_pct: float | None = None
    top1_pct: float | None = None
    drop_pp: float | None = None
    drop_ci90_pp: tuple[float, float] | None = None
    drop_max_pp: float
    disagreement_pct: float
    mcnemar_p: float | None = None
    max_drop_pp: float
    rule: Rule
    proof: Proof
    images_to_settle: int | None
    mse_mean: float
    mse_p99: float

    @property
    def loss_pp(self) -> float:
        """The drop seen, or without labels the share of changed answers."""
        return self.disagreement_pct if self.drop_pp is None else self.drop_pp


class BatchDependence(Part):
    """Answers to the same images alone and in a batch: classes changed, largest difference of a
    softmax output."""

    n: int
    batch_size: int
    changed: int
    max_abs_diff: float


class VariantSpeed(Part):
    """A variant's speed at one batch size: its own row, and paired against float32. `speed` is
    `unclear` where no difference of at least 2 % could be shown."""

    batch_size: int
    speed: Speed
    comparison: Comparison | None
    row: BenchRow | None

    def slim(self) -> Self:
        """Return it with the median of each block in place of its calls."""
        return self.model_copy(update={"row": self.row and self.row.slim()})


class LayerNoise(Part):
    """One layer of a variant against float32, over all values and the images looked at. `snr_db` is
    the signal-to-noise ratio, at most 120; null where float32 answers 0 throughout and the variant
    does not. `calibrated` is the range that static quantization can tell at all."""

    layer: str
    snr_db: float | None
    float_range: tuple[float, float]
    int8_range: tuple[float, float]
    calibrated: tuple[float, float] | None = None


class Divergence(Part):
    """Where a variant that loses accuracy parts from float32: its layers in the order they run.
    `first` is the first layer whose ratio is below `limit_db`, null where none is."""

    n: int
    limit_db: float
    first: str | None
    finding: str
    layers: tuple[LayerNoise, ...]


class VariantRow(Part):
    """One variant, or the float32 baseline; sizes count sidecars, `file` is relative to the
    experiment folder."""

    name: str
    title: str
    how: str
    gated: bool
    status: Literal["measured", "unavailable"]
    reason: str | None = None
    file: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    ops: dict[str, int] = {}
    notes: tuple[str, ...] = ()
    accuracy: Accuracy | None = None
    verdict: Verdict | None = None
    by_class: tuple[ClassFlips, ...] = ()
    flips: tuple[Flip, ...] = ()
    batch_dependence: BatchDependence | None = None
    speed: tuple[VariantSpeed, ...] = ()
    divergence: Divergence | None = None

    def speed_at(self, batch_size: int) -> VariantSpeed | None:
        """Return the variant's speed at a batch size, None where it was not timed."""
        return next((one for one in self.speed if one.batch_size == batch_size), None)

    @property
    def speedups(self) -> dict[int, float]:
        """Its speed over float32's by batch size, where it was measured."""
        return {one.batch_size: one.comparison.speedup for one in self.speed if one.comparison}

    @property
    def pace(self) -> Speed:
        """Against float32: `slower` at a batch size, else `faster` at one, else `unclear`."""
        speeds = [one.speed for one in self.speed]
        return next((one for one in ("slower", "faster") if one in speeds), "unclear")


class QuantizeRecord(Record):
    """A quantization, whole: conditions, variants, accuracy, speed, verdict, recommendation. The
    verdict is the accuracy gate of the gated variant; `recommended` is what to deploy, the float32
    model included. `prepared` is what was done to the float32 model before it was quantized, a
    phrase each."""

    schema_name = "quantize"

    verdict: Verdict
    finding: str
    exit_code: int
    lineage: Lineage
    model: ModelFacts
    inputs: InputFacts
    calibration: InputFacts | None
    preprocess: str
    img_size: int
    accuracy_gate: Literal["rule", "proven"]
    max_drop_pp: float
    gated: str
    labelled: bool
    label_note: str | None
    provider: str
    batch_sizes: tuple[int, ...]
    seed: int
    budget_s: float
    wall_s: float
    disturbance: Disturbance
    recommended: str
    recommendation: str
    rows: tuple[VariantRow, ...]
    prepared: tuple[str, ...] = ()

    @property
    def baseline(self) -> VariantRow:
        """The float32 model's row."""
        return self.rows[0]

    @property
    def baseline_top1_pct(self) -> float | None:
        """The float32 model's accuracy, where it is known."""
        return next((row.accuracy.baseline_top1_pct for row in self.variants if row.accuracy), None)

    @property
    def gated_row(self) -> VariantRow:
        """The row that decides the verdict."""
        return self.row(self.gated)

    def row(self, name: str) -> VariantRow:
        """Return the row of this name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def variants(self) -> tuple[VariantRow, ...]:
        """Every row but the baseline's."""
        return self.rows[1:]

    def slim(self) -> Self:
        """Return the record with the median of each timed block in place of its calls."""
        rows = (
            row.model_copy(update={"speed": tuple(one.slim() for one in row.speed)})
            for row in self.rows
        )
        return self.model_copy(update={"rows": tuple(rows)})
