"""What a sweep leaves behind: a row for every combination, the best, the recommended, the axes."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from opslib.core.formatting import format_counts, plural
from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict
from opslib.inference.facts import InputFacts, ModelFacts
from opslib.inference.providers import DEFAULT_CUDA_OPTIONS, SessionSettings
from opslib.timing.disturbance import Disturbance

Outcome = Literal["measured", "equivalent", "pruned", "unavailable"]
_STATUS = re.compile(
    r"(?P<outcome>\w+)"
    r"(?: to row (?P<same_as>\d+)| at round (?P<pruned_at>\d+)|: (?P<reason>.*))?",
    re.DOTALL,
)
FEWEST_FINALS = 2
SCALARS = ("graph_optimization_level", "intra_op_num_threads", "allow_spinning")


class SweepOptions(Part):
    """The options a sweep varies, in ONNX Runtime's spelling; the defaults are the policy."""

    providers: tuple[str, ...] = ("CUDA", "CPU")
    graph_optimization_level: str = "ALL"
    intra_op_num_threads: int = 0
    allow_spinning: bool = True
    cuda: dict[str, str | int] = dict(DEFAULT_CUDA_OPTIONS)

    def settings(self) -> SessionSettings:
        """Return them as session settings."""
        return SessionSettings(
            graph_optimization_level=self.graph_optimization_level,
            intra_op_num_threads=self.intra_op_num_threads,
            allow_spinning=self.allow_spinning,
            cuda=dict(self.cuda),
        )

    def flat(self) -> dict[str, str | int | bool]:
        """Return every option by name, provider options as `cuda.<name>`."""
        cuda = {f"cuda.{name}": value for name, value in sorted(self.cuda.items())}
        scalars = {name: getattr(self, name) for name in SCALARS}
        return {"providers": ",".join(self.providers), **scalars, **cuda}

    def changes(self) -> dict[str, str | int | bool]:
        """Return the options that differ from the default, by name."""
        usual: Mapping[str, str | int | bool] = SweepOptions().flat()
        return {name: value for name, value in self.flat().items() if usual.get(name) != value}

    @property
    def label(self) -> str:
        """The differences from the default in a few words: `BASIC, 1 thread`."""
        parts = [_describe(name, value) for name, value in self.changes().items()]
        return ", ".join(parts) or "default"


def _describe(name: str, value: str | int | bool) -> str:
    if name == "providers":
        return f"{value} only" if value in ("CPU", "CUDA") else str(value)
    if name == "graph_optimization_level":
        return str(value)
    if name == "intra_op_num_threads":
        return plural(int(value), "thread")
    if name == "allow_spinning":
        return "no spinning"
    return f"{name.removeprefix('cuda.')}={value}"


class TriedRow(Part):
    """What became of one requested combination, whatever it was tried with.

    `status` is `measured`, `equivalent to row N`, `pruned at round K` or `unavailable: reason`;
    `outcome`, `same_as`, `pruned_at` and `reason` say the same one by one.
    `provider` is the one in force. `speedup` is the default's time over this row's, with its 95 %
    interval, both from rounds in which the two were measured together; `from_finals` says that
    these were taken in fresh processes.
    """

    number: int
    provider: str
    status: str
    outcome: Outcome = "measured"
    same_as: int | None = None
    pruned_at: int | None = None
    reason: str | None = None
    note: str | None = None
    speedup: float | None = None
    speedup_ci95: tuple[float, float] | None = None
    from_finals: bool = False
    tied_with_best: bool = False
    max_abs_diff: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_status(cls, given: Any) -> Any:
        """Older rows say in `status` alone what became of them."""
        match = _STATUS.fullmatch(given["status"]) if isinstance(given, dict) else None
        return given | match.groupdict() if match else given

    @property
    def has_figure(self) -> bool:
        """Whether this row was timed itself."""
        return self.speedup is not None


class SweepRow(TriedRow):
    """One requested combination at one batch size. `raw_ms` holds the median of each round in
    milliseconds and `default_raw_ms` the default's in the same rounds."""

    batch_size: int
    options: SweepOptions
    p50_ms: float | None = None
    throughput_img_s: float | None = None
    graph_sha256: str | None = None
    raw_ms: tuple[float, ...] = ()
    default_raw_ms: tuple[float, ...] = ()


class RaceResult(Part):
    """How a race and its finals ended; rows are given by number. `unclear` are finalists that could
    be neither separated from the best nor called tied."""

    default_row: int
    best_row: int
    recommended_row: int
    tie_set: tuple[int, ...]
    unclear: tuple[int, ...]
    gain: float
    gain_ci95: tuple[float, float]
    race_rounds: int
    final_rounds: int
    run_delay_pct: float | None
    wall_s: float

    @property
    def is_decided(self) -> bool:
        """Whether it is known of the default and the best how they stand; where the default is the
        best, of the default and every other finalist."""
        ahead = self.best_row == self.default_row
        doubtful = bool(self.unclear) if ahead else self.default_row in self.unclear
        return not doubtful and self.final_rounds > FEWEST_FINALS


class BatchResult(RaceResult):
    """How the race and the finals of one batch size ended."""

    batch_size: int


class Best(Part):
    """The highest measured combination for the objective."""

    row: int
    batch_size: int
    options: SweepOptions
    p50_ms: float
    throughput_img_s: float


class Recommended(Part):
    """The simplest combination tied with the best, or the default where that is not proven slower;
    `gain` is its speed over the default's."""

    row: int
    batch_size: int
    options: SweepOptions
    changes: dict[str, str | int | bool]
    gain: float
    gain_ci95: tuple[float, float]
    tie_set: tuple[int, ...]

    @property
    def is_default(self) -> bool:
        """Whether nothing needs to be changed."""
        return not self.changes


class AxisEffect(Part):
    """What one option's value does, all else at its default: speed against the default value's."""

    axis: str
    value: str
    batch_size: int
    row: int
    speedup: float | None
    speedup_ci95: tuple[float, float] | None
    effect: str


class SweepRecord(Record):
    """A sweep, whole: conditions, every row, the best, the recommended and what each axis does."""

    schema_name = "ort_bench"

    verdict: Verdict
    finding: str
    exit_code: int
    lineage: Lineage
    model: ModelFacts
    inputs: InputFacts
    img_size: int
    objective: str
    seed: int
    budget_s: float
    wall_s: float
    margin_pct: float
    resumed_trials: int
    disturbance: Disturbance
    rows: tuple[SweepRow, ...]
    batches: tuple[BatchResult, ...]
    best: Best | None
    recommended: Recommended | None
    axes: tuple[AxisEffect, ...]

    def count_outcomes(self) -> str:
        """Return how many rows ended how: `12 measured, 3 equivalent`."""
        return format_counts(Counter(row.outcome for row in self.rows))

    def row(self, number: int) -> SweepRow:
        """Return the row of this number."""
        return self.rows[number - 1]
