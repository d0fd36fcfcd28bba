"""What a look at all hosts leaves behind: each host, what it serves, and how fast it is beside
its like."""

from typing import Literal

from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict

Outcome = Literal["slower", "faster", "alike"]
Measure = Literal["latency", "ratio"]
Source = Literal["answered", "switched in"]


class Served(Part):
    """A model that a host was known to serve: what it is, since when at the latest (`first_utc`)
    and until when that was known (`last_utc`). `source`: the service answered so, or it was the
    last one switched in when a run ended. `sha256` may be its first digits alone. `newer` says how
    many newer models of its kind are served now by hosts that are not silent."""

    kind: str
    name: str
    sha256: str | None
    version_tag: str | None
    first_utc: str
    last_utc: str
    source: Source
    newer: int = 0


class LikeMeasure(Part):
    """A figure of a host beside that of its like: how far it lies above more than half of the
    others, in percent, with its interval; the p-value is adjusted for all that is asked together.
    `level` is in milliseconds, or as a multiple of the reference network's."""

    measure: Measure
    level: float
    difference_pct: float
    interval_pct: tuple[float, float]
    p_value: float
    outcome: Outcome


class LikeRow(Part):
    """One host in one group of like hosts. `runs`: so many of it count, the newest of which was
    made at `last_utc`."""

    host: str
    runs: int
    last_utc: str
    measures: tuple[LikeMeasure, ...]

    def measure(self, name: Measure) -> LikeMeasure | None:
        """Return the figure of that name, or None where it has none."""
        return next((one for one in self.measures if one.measure == name), None)

    @property
    def outcome(self) -> Outcome:
        """The worst of its figures."""
        found = {one.outcome for one in self.measures}
        return "slower" if "slower" in found else "faster" if "faster" in found else "alike"


class LikeGroup(Part):
    """Hosts of equal hardware that ran the same: `hardware` and `what` name the group, `conditions`
    say all that is the same in it, `batch_sizes` over which its figures are taken together.
    `confidence` is that of its intervals."""

    hardware: str
    what: str
    conditions: dict[str, str]
    batch_sizes: tuple[int, ...]
    confidence: float
    rows: tuple[LikeRow, ...]


class FleetHost(Part):
    """One host of the desk. `runs` were made in the days that count, the last of them at
    `last_utc`, `silent_days` before the look. `speed` says how fast it is beside its like, None
    where that cannot be told, and `why` the reason or where a difference comes from."""

    name: str
    hardware: str
    runs: int
    last_utc: str
    silent_days: float
    is_silent: bool
    speed: Outcome | None
    why: str
    served: tuple[Served, ...]
    behind: tuple[str, ...] = ()


class FleetRecord(Record):
    """All hosts of a report folder. `fail` where one is slower than its like, or serves an older
    model than others do; else `inconclusive` where something is not known: a host that could not be
    compared, or was not heard of for `silent_days`. `notes`: what was left out."""

    schema_name = "fleet"

    verdict: Verdict
    finding: str
    exit_code: int
    lineage: Lineage
    days: float
    silent_days: float
    behind_days: float
    hosts: tuple[FleetHost, ...]
    groups: tuple[LikeGroup, ...]
    history: dict[str, tuple[Served, ...]]
    notes: tuple[str, ...] = ()
