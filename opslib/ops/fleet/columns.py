"""The columns of the hosts, of each beside its like, and of what each was known to serve."""

from collections.abc import Iterable
from typing import NamedTuple

from opslib.core.formatting import format_ms
from opslib.ops.fleet.record import (
    FleetHost,
    FleetRecord,
    LikeGroup,
    LikeMeasure,
    LikeRow,
    Measure,
    Served,
    Source,
)
from opslib.telling.columns import PAGE, Column

MOST_GROUPS = 4
SOURCES: dict[Source, str] = {
    "answered": "the service, to the checklist",
    "switched in": "the last switch before a run",
}
SPEEDS = {
    "slower": "slower than its like",
    "faster": "faster than its like",
    "alike": "as its like",
}


class Likened(NamedTuple):
    """A host and the group in which it was held beside its like."""

    group: LikeGroup
    row: LikeRow


class Current(NamedTuple):
    """A host and the model of a kind that it was last known to serve."""

    host: FleetHost
    served: Served


class Known(NamedTuple):
    """A model that a host was known to serve."""

    host: str
    served: Served


HOST_COLUMNS: tuple[Column[FleetHost], ...] = (
    Column("host", lambda host: host.name),
    Column("hardware", lambda host: host.hardware),
    Column("speed", lambda host: SPEEDS.get(str(host.speed), "not known")),
    Column("why", lambda host: host.why or None),
    Column("newest run (UTC)", lambda host: minute(host.last_utc), where=PAGE),
    Column("heard of", lambda host: tell_silence(host)),
    Column("runs", lambda host: host.runs, right=True),
)
MODEL_COLUMNS: tuple[Column[Current], ...] = (
    Column("host", lambda one: one.host.name),
    Column("serves", lambda one: shown_name(one.served)),
    Column("kind", lambda one: one.served.kind, where=PAGE),
    Column("as of (UTC)", lambda one: minute(one.served.last_utc)),
    Column("said by", lambda one: SOURCES[one.served.source], where=PAGE),
    Column("is", lambda one: _tell_behind(one)),
)
LIKE_COLUMNS: tuple[Column[Likened], ...] = (
    Column("host", lambda one: one.row.host),
    Column("what", lambda one: one.group.what),
    Column("p50 ms", lambda one: _level(one, "latency"), format_ms, right=True),
    Column("beside its like", lambda one: _beside(one, "latency"), right=True),
    Column("× reference", lambda one: _level(one, "ratio"), "{:.2f}".format, right=True),
    Column("the ratio beside its like", lambda one: _beside(one, "ratio"), right=True),
    Column("is", lambda one: one.row.outcome),
    Column("runs", lambda one: one.row.runs, right=True),
)
SERVED_COLUMNS: tuple[Column[Known], ...] = (
    Column("host", lambda known: known.host),
    Column("kind", lambda known: known.served.kind),
    Column("model", lambda known: shown_name(known.served)),
    Column("known from (UTC)", lambda known: minute(known.served.first_utc)),
    Column("until (UTC)", lambda known: minute(known.served.last_utc)),
    Column("newer ones", lambda known: known.served.newer, right=True),
)


class Condition(NamedTuple):
    """A group of like hosts and one thing that is the same for all of them."""

    group: str
    name: str
    value: str


CONDITION_COLUMNS: tuple[Column[Condition], ...] = (
    Column("group", lambda one: one.group),
    Column("hosts", lambda one: one.name),
    Column("the same for all of them", lambda one: one.value),
)


def list_likened(record: FleetRecord) -> list[Likened]:
    """Return every host in every group, the most different of a group first."""
    return [Likened(group, row) for group in record.groups for row in sort_rows(group)]


def sort_rows(group: LikeGroup) -> list[LikeRow]:
    """Return the hosts of a group, the slowest first."""
    return sorted(group.rows, key=_most_different, reverse=True)


def pick_groups(record: FleetRecord) -> list[LikeGroup]:
    """Return one group for each hardware, one with a slower host if there is one: the others say
    much the same."""
    picked: dict[str, LikeGroup] = {}
    for group in record.groups:
        known = picked.get(group.hardware)
        measured = any(row.measures for row in group.rows)
        if measured and (known is None or _has_slower(group) > _has_slower(known)):
            picked[group.hardware] = group
    return sorted(picked.values(), key=_has_slower, reverse=True)[:MOST_GROUPS]


def _has_slower(group: LikeGroup) -> bool:
    return any(row.outcome == "slower" for row in group.rows)


def list_picked(record: FleetRecord) -> list[Likened]:
    """Return every host in the groups of `pick_groups`, the slowest of a group first."""
    return [Likened(group, row) for group in pick_groups(record) for row in sort_rows(group)]


def list_current(record: FleetRecord) -> list[Current]:
    """Return what each host was last known to serve."""
    return [Current(host, one) for host in record.hosts for one in host.served]


def list_known(record: FleetRecord) -> list[Known]:
    """Return what each host was known to serve, the newest first."""
    return [Known(host, one) for host, served in record.history.items() for one in reversed(served)]


def list_conditions(record: FleetRecord) -> list[Condition]:
    """Return what makes the hosts of each group alike."""
    return [
        Condition(
            f"{group.hardware}: {group.what}",
            ", ".join(row.host for row in group.rows),
            "; ".join(f"{name} {value}" for name, value in group.conditions.items()),
        )
        for group in record.groups
    ]


def shown_name(served: Served) -> str:
    """Return a model's name as people call it."""
    return served.name.removesuffix(".onnx")


def minute(utc: str) -> str:
    """Return a moment of a record to the minute."""
    return utc[:16].replace("T", " ")


def signed(percent: float) -> str:
    """Return a difference as `+3.2 %`."""
    return f"{percent:+.1f} %".replace("-", "−")


def tell_silence(host: FleetHost) -> str:
    """Return how long ago the newest run of a host was."""
    if host.silent_days < 1:
        return "today"
    days = round(host.silent_days)
    text = f"{days} day{'' if days == 1 else 's'} ago"
    return f"{text}: silent" if host.is_silent else text


def _tell_behind(one: Current) -> str:
    if one.host.behind:
        return "; ".join(one.host.behind)
    newer = one.served.newer
    return f"behind by {newer}" if newer else "the newest in service"


def _level(one: Likened, name: Measure) -> float | None:
    measure = one.row.measure(name)
    return measure.level if measure else None


def _beside(one: Likened, name: Measure) -> str | None:
    measure = one.row.measure(name)
    if measure is None:
        return None
    low, high = (signed(end).removesuffix(" %") for end in measure.interval_pct)
    return f"{signed(measure.difference_pct)} ({low} to {high})"


def _most_different(row: LikeRow) -> float:
    measures: Iterable[LikeMeasure] = row.measures
    return max((one.difference_pct for one in measures), default=0.0)
