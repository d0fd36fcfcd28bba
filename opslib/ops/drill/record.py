"""What a rollback drill leaves behind: every request, every event, the verdict and its reasons."""

import statistics
from collections.abc import Sequence
from typing import Literal, Self

from opslib.core.language import tr
from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict
from opslib.inference.facts import InputFacts
from opslib.timing.disturbance import Disturbance

EventKind = Literal[
    "swap", "rollback", "bad model", "two at once", "switch", "kill -9", "leak", "back"
]
WindowKind = Literal[
    "baseline",
    "A/A",
    "swaps and rollbacks",
    "swaps",
    "rollbacks",
    "bad models",
    "two at once",
    "kill -9",
    "leak swaps",
    "after",
]
Interval = tuple[float, float]
FROM_SWITCH = 10
AROUND = 5


class DrillModel(Part):
    """One of the two models: its file's name and the digest of its unit."""

    name: str
    sha256: str


class DrillEvent(Part):
    """Something that was done to the service, in seconds from the first request of the load.
    `first_answer_s` is when the model that it brought in was first seen in an answer, `end_s` when
    the event itself was over. `window_end_s` ends the span in which requests count as its own."""

    kind: EventKind
    name: str
    start_s: float
    end_s: float
    first_answer_s: float | None = None
    window_end_s: float
    status: int | None = None
    stage: str | None = None
    resident: bool | None = None
    mark_before: str | None = None
    mark_after: str | None = None

    @property
    def ready_s(self) -> float | None:
        """Seconds until the model that was asked for was seen in an answer."""
        return None if self.first_answer_s is None else self.first_answer_s - self.start_s


class Calm(Part):
    """A span in which nothing was done to the service, in seconds from the first request."""

    kind: WindowKind
    start_s: float
    end_s: float


class WindowStats(Part):
    """Latency of the requests that were due in windows of one kind; intervals are of 95 %. `p99_ms`
    is null where there are too few requests to support it."""

    kind: WindowKind
    windows: int
    duration_s: float
    requests: int
    failed: int
    p50_ms: float | None = None
    p50_ci95_ms: Interval | None = None
    p99_ms: float | None = None
    p99_ci95_ms: Interval | None = None
    worst_ms: float | None = None


class Injection(Part):
    """What was done to the service, what it promises then, and what was seen. `held` is None where
    it could not be tried; `seen` says why."""

    injected: str
    promised: str
    seen: str
    held: bool | None


class PromiseCheck(Part):
    """One line of the verdict: a figure, its limit and whether it kept to it."""

    name: str
    value: str
    limit: str
    result: Verdict
    reason: str | None = None

    @property
    def line(self) -> str:
        """The check in words."""
        told = tr(
            "{name}: {value} (allowed: {limit})",
            name=tr(self.name),
            value=self.value,
            limit=self.limit,
        )
        return f"{told} ({self.reason})" if self.reason else told


class Memory(Part):
    """Resident memory of the service after a switch; those that look for leaks count apart."""

    during: Literal["swap", "leak"]
    swap: int
    rss_bytes: int


class RawRequests(Part):
    """Every request in the order in which it was due; status 0 is no answer. `mark` is an index
    into `marks`, what the service called the model that answered (-1: none). `sent_late_ms` is the
    part of the latency that is the generator's own."""

    marks: tuple[str, ...]
    due_s: tuple[float, ...]
    latency_ms: tuple[float, ...]
    sent_late_ms: tuple[float, ...]
    status: tuple[int, ...]
    mark: tuple[int, ...]


class DrillRecord(Record):
    """A rehearsed rollback: figures, events, checks and every request."""

    schema_name = "drill"

    verdict: Verdict
    finding: str
    exit_code: int
    lineage: Lineage
    target: Literal["staging", "url"]
    form: Literal["short", "long"]
    device: str
    model: DrillModel
    other_model: DrillModel
    inputs: InputFacts
    capacity_per_s: float
    load_share: float
    rate_per_s: float
    p99_ratio_max: float
    settle_s: float
    started_at_utc: str
    wall_s: float
    requests: int
    failed: int
    failed_in_kill: int
    mixed: int
    longest_stall_ms: float
    sent_late_p99_ms: float
    windows: tuple[WindowStats, ...]
    calms: tuple[Calm, ...]
    events: tuple[DrillEvent, ...]
    injections: tuple[Injection, ...]
    checks: tuple[PromiseCheck, ...]
    memory: tuple[Memory, ...]
    disturbance: Disturbance
    notes: tuple[str, ...] = ()
    raw: RawRequests | None = None

    def window(self, kind: WindowKind) -> WindowStats | None:
        """Return the figures of windows of this kind, or None where there were none."""
        return next((one for one in self.windows if one.kind == kind), None)

    def events_of(self, *kinds: EventKind) -> tuple[DrillEvent, ...]:
        """Return the events of these kinds, in order."""
        return tuple(one for one in self.events if one.kind in kinds)

    def slim(self) -> Self:
        """Return the record without its single requests."""
        return self.model_copy(update={"raw": None})


def growth_pct(memory: Sequence[Memory]) -> float | None:
    """Return how much larger the service was after the last of the switches that look for leaks
    than after the tenth, in percent, or None with fewer than twenty. Each end is the median of
    eleven switches, since what is in flight when memory is read makes a single value jump."""
    by_switch = {one.swap: one.rss_bytes for one in memory if one.during == "leak"}
    last = max(by_switch, default=0)
    if last < 2 * FROM_SWITCH:
        return None
    early, late = (
        [by_switch[one] for one in range(end - 2 * AROUND, end + 1) if one in by_switch]
        for end in (FROM_SWITCH + AROUND, last)
    )
    if not early or not late:
        return None
    return 100 * (statistics.median(late) / statistics.median(early) - 1)
