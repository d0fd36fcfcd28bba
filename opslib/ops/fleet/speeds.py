"""How fast each host is beside its like: every comparison of the desk judged as one family.

In one of a hundred desks on which no host differs, at most, any host is called slower or faster.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from opslib.ops.bench.compare import MIN_EFFECT_PCT
from opslib.ops.bench.history import FAMILY_ALPHA
from opslib.ops.fleet.collect import Host
from opslib.ops.fleet.groups import LEAST_HOSTS, Group, make_groups, tell_difference
from opslib.ops.fleet.record import LikeGroup, LikeMeasure, LikeRow, Measure, Outcome
from opslib.timing.like import Spread, Unlike, adjust, find_unlike, moderate

MEASURES: tuple[Measure, ...] = ("latency", "ratio")


@dataclass(frozen=True)
class Asked:
    """One comparison: a figure of the host at a place among those of its group."""

    group: int
    host: str
    measure: Measure
    spreads: Sequence[Spread]
    at: int


@dataclass(frozen=True)
class Speed:
    """How fast a host is beside its like, None where that cannot be told, and why."""

    outcome: Outcome | None
    why: str


def compare_hosts(hosts: Sequence[Host]) -> tuple[tuple[LikeGroup, ...], dict[str, Speed]]:
    """Return the groups of like hosts, and by title how fast each host is beside its like."""
    groups = make_groups(hosts)
    chosen = _choose(groups)
    asked = [one for at, (group, own) in enumerate(chosen) for one in _ask(at, group, own)]
    alpha = FAMILY_ALPHA / max(1, len(asked))
    found = [find_unlike(one.spreads, one.at, alpha) for one in asked]
    told: dict[tuple[int, str], list[LikeMeasure]] = {}
    for one, unlike, p_value in zip(asked, found, adjust(found), strict=True):
        told.setdefault((one.group, one.host), []).append(_tell(one, unlike, p_value))
    likes = []
    for at, (group, own) in enumerate(chosen):
        rows = [
            LikeRow(
                host=host,
                runs=len(group.counted(host, group.sizes)),
                last_utc=max(point.at for point in group.points[host]).isoformat(),
                measures=tuple(told[at, host]),
            )
            for host in own
            if (at, host) in told
        ]
        likes.append(
            LikeGroup(
                hardware=group.hardware,
                what=group.what,
                conditions=group.conditions,
                batch_sizes=group.sizes,
                confidence=1 - alpha,
                rows=tuple(rows),
            )
        )
    return tuple(likes), {host.title: _sum_up(host, groups, likes) for host in hosts}


def _choose(groups: Sequence[Group]) -> list[tuple[Group, list[str]]]:
    """The groups that are judged, each with those of its hosts for which it is the newest."""
    seen: dict[tuple[str, tuple[str, str, str]], set[str]] = {}
    chosen = []
    for group in groups:
        members = group.members
        judged = seen.setdefault((group.machine, group.line), set())
        own = [host for host in members if host not in judged]
        if len(members) >= LEAST_HOSTS and own:
            judged.update(own)
            chosen.append((group, own))
    return sorted(chosen, key=lambda one: _place(one[0]))


def _place(group: Group) -> tuple[str, str, bool]:
    engine, _, boundary = group.line
    return group.hardware, engine, boundary != "inference"


def _ask(at: int, group: Group, own: Sequence[str]) -> list[Asked]:
    asked = []
    for measure in MEASURES:
        known = {host: group.figures(host, measure) for host in group.members}
        usable = {host: figures for host, figures in known.items() if figures is not None}
        if len(usable) < LEAST_HOSTS:
            continue
        spreads, names = moderate(list(usable.values())), list(usable)
        asked += [
            Asked(at, host, measure, spreads, names.index(host)) for host in own if host in usable
        ]
    return asked


def _tell(asked: Asked, unlike: Unlike, p_value: float) -> LikeMeasure:
    def percent(log: float) -> float:
        return 100 * math.expm1(log)

    outcome: Outcome = "alike"
    enough = abs(unlike.difference) >= math.log1p(MIN_EFFECT_PCT / 100)
    if p_value <= FAMILY_ALPHA and enough:
        outcome = "slower" if unlike.p_higher < unlike.p_lower else "faster"
    return LikeMeasure(
        measure=asked.measure,
        level=math.exp(asked.spreads[asked.at].mean),
        difference_pct=percent(unlike.difference),
        interval_pct=(percent(unlike.low), percent(unlike.high)),
        p_value=p_value,
        outcome=outcome,
    )


def _sum_up(host: Host, groups: Sequence[Group], likes: Sequence[LikeGroup]) -> Speed:
    rows = [(like, row) for like in likes for row in like.rows if row.host == host.title]
    if not rows:
        return Speed(None, tell_difference(host.title, groups))
    outcomes = {row.outcome for _, row in rows}
    found: tuple[Outcome, Outcome] = ("slower", "faster")
    for wanted in found:
        if wanted in outcomes:
            strange = [row for _, row in rows if row.outcome == wanted]
            return Speed(wanted, _attribute(strange, wanted))
    return Speed("alike", "")


def _attribute(rows: Sequence[LikeRow], outcome: Outcome) -> str:
    """Where a difference comes from, as far as the reference network tells."""
    ratios = [one for row in rows if (one := row.measure("ratio"))]
    latencies = [one for row in rows if (one := row.measure("latency"))]
    if not ratios:
        return "where from is open: no reference network was timed with it"
    if all(one.outcome == "alike" for one in ratios):
        return f"the whole host: the reference network is {outcome} there too"
    if all(one.outcome == "alike" for one in latencies):
        return "only its ratio to the reference network differs"
    return "the model, not the host: look at its runtime and settings"
