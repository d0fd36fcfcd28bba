"""What a sweep of the service leaves behind: a row for every combination, the best, the choice."""

from collections import Counter
from typing import Literal

from opslib.core.formatting import format_counts, format_ms, plural
from opslib.core.language import tr
from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict
from opslib.inference.facts import InputFacts, ModelFacts
from opslib.ops.sweep.record import RaceResult, TriedRow
from opslib.timing.disturbance import Disturbance

Objective = Literal["throughput", "p99"]
# The keys of the configuration that hold the options.
KEYS = {
    "workers": "service.workers",
    "intra_op_num_threads": "service.intra_op_num_threads",
    "max_batch": "service.max_batch",
    "allow_spinning": "onnx.allow_spinning",
}


class ServedOptions(Part):
    """What a service is told of how it runs requests; the defaults are those of the configuration.
    `workers` and `intra_op_num_threads`: 0 means as many as it may use."""

    workers: int = 0
    intra_op_num_threads: int = 1
    max_batch: int = 8
    allow_spinning: bool = True

    def settings(self) -> dict[str, int | bool]:
        """Return every option by its key in the configuration."""
        return {key: getattr(self, name) for name, key in KEYS.items()}

    def changes(self) -> dict[str, int | bool]:
        """Return the options that differ from the default, by their key."""
        usual = ServedOptions().settings()
        return {key: value for key, value in self.settings().items() if usual[key] != value}

    @property
    def label(self) -> str:
        """The differences from the default in a few words: `1 worker, 2 threads each`."""
        parts = [_describe(key, value) for key, value in self.changes().items()]
        return ", ".join(parts) or "default"


def _describe(key: str, value: int | bool) -> str:
    if key == KEYS["workers"]:
        return plural(value, "worker")
    if key == KEYS["intra_op_num_threads"]:
        return f"{plural(value, 'thread') if value else 'all threads'} each"
    if key == KEYS["max_batch"]:
        return "no batching" if value == 1 else f"batches of {value}"
    return "no spinning"


class Goal(Part):
    """What is measured: the rate that a service carries with its p99 within `p99_limit_ms`, or the
    p99 of a visit at `rate_per_s`; the other one is None."""

    objective: Objective
    p99_limit_ms: float | None = None
    rate_per_s: float | None = None

    def tell(self, value: float | None) -> str:
        """Return a figure with what it is: `812 requests a second, p99 within 100 ms`."""
        if self.objective == "throughput":
            return tr(
                "{rate:,.0f} requests a second, p99 within {limit:g} ms",
                rate=value or 0,
                limit=self.p99_limit_ms,
            )
        return tr(
            "p99 {p99} ms (median of the visits) at {rate:,.0f} requests a second",
            p99=format_ms(value),
            rate=self.rate_per_s,
        )


class ServedRow(TriedRow):
    """One requested combination. `rate_per_s` is the rate that it carried, `p99_ms` the median of
    the visits' p99s at the rate that was asked about; the one that is no objective is None. The raw
    values are those of each round, and the default's in the same rounds."""

    options: ServedOptions
    rate_per_s: float | None = None
    p99_ms: float | None = None
    raw_per_s: tuple[float, ...] = ()
    default_raw_per_s: tuple[float, ...] = ()
    raw_p99_ms: tuple[float, ...] = ()
    default_raw_p99_ms: tuple[float, ...] = ()


class ServedBest(Part):
    """The best measured combination for the objective."""

    row: int
    options: ServedOptions
    rate_per_s: float | None
    p99_ms: float | None


class ServedRecommended(Part):
    """The simplest combination tied with the best; `changes` by key of the configuration. `gain` is
    its rate over the default's, or the default's p99 over its own."""

    row: int
    options: ServedOptions
    changes: dict[str, int | bool]
    gain: float
    gain_ci95: tuple[float, float]
    tie_set: tuple[int, ...]

    @property
    def is_default(self) -> bool:
        """Whether nothing needs to be changed."""
        return not self.changes


class ServedSweepRecord(Record):
    """A sweep of the service, whole: conditions, every row, the best and the recommended.
    `sent_late_p99_ms` is what the load generator itself was late by, the median over its loads."""

    schema_name = "served_sweep"

    verdict: Verdict
    finding: str
    exit_code: int
    lineage: Lineage
    model: ModelFacts
    inputs: InputFacts
    goal: Goal
    seed: int
    budget_s: float
    wall_s: float
    margin_pct: float
    resumed_trials: int
    sent_late_p99_ms: float | None
    disturbance: Disturbance
    rows: tuple[ServedRow, ...]
    result: RaceResult | None
    best: ServedBest | None
    recommended: ServedRecommended | None

    def count_outcomes(self) -> str:
        """Return how many rows ended how: `12 measured, 4 equivalent`."""
        return format_counts(Counter(row.outcome for row in self.rows))

    def row(self, number: int) -> ServedRow:
        """Return the row of this number."""
        return self.rows[number - 1]
