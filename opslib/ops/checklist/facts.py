"""What items keep in full beside their lines of evidence: log groups, disks, speed changes."""

from __future__ import annotations

from opslib.core.records import Part


class LogGroup(Part):
    """Error lines that say the same: how often, since when, until when, and one as it stood.

    `first_utc` and `last_utc` are null where the lines carry no time; `ignored` says that the
    configuration lets them pass.
    """

    source: str
    level: str
    message: str
    example: str
    count: int
    first_utc: str | None
    last_utc: str | None
    ignored: bool = False


class DiskPoint(Part):
    """How much of a disk was used at one moment."""

    at_utc: str
    used_bytes: int


class DiskFacts(Part):
    """One mounted file system: its use now, its trend, and when it will be full.

    `growth_bytes_per_day` is the median of the slopes between all pairs of points, with its
    95 % interval; `days_until_full` follows from it, the earliest one from the upper end. They
    are null where the history is too short to tell, or where nothing grows; `trend` says which.
    """

    mount: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    used_pct: float
    trend: str
    growth_bytes_per_day: float | None = None
    growth_ci95_bytes_per_day: tuple[float, float] | None = None
    days_until_full: float | None = None
    days_until_full_earliest: float | None = None
    history: tuple[DiskPoint, ...] = ()


class SpeedChange(Part):
    """How much slower (above 0) or faster one row of the last benchmark is than the one before."""

    what: str
    before_ms: float
    after_ms: float
    change_pct: float
    change_ci99_pct: tuple[float, float]
    outcome: str
