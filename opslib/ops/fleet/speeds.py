"""How fast each host is beside its like: every comparison of the desk judged as one family.

In one of a hundred desks on which no host differs, at most, any host is called slower or faster.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from opslib.ops.bench.compare import MIN_EFFECT_PCT
from opslib.ops.bench.history import FAMILY_ALPHA
from opslib.ops.fleet.collect import Host
from opslib.ops.fleet.groups import LEAST_HOSTS, Group, Timed, make_groups, tell_difference
from opslib.ops.fleet.record import LikeGroup, LikeMeasure, LikeRow, Measure, Outcome
from opslib.timing.like import Spread, Unlike, adjust, find_unlike, moderate

MEASURES: tuple[Measure, ...] = ("latency", "ratio")
Placed = tuple[Group, LikeRow]


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
    placed = [
        (group, row) for (group, _), like in zip(chosen, likes, strict=True) for row in like.rows
    ]
    return tuple(likes), {host.title: _sum_up(host, groups, placed) for host in hosts}


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
        spreads, names = _weigh(group, measure)
        asked += [
            Asked(at, host, measure, spreads, names.index(host)) for host in own if host in names
        ]
    return asked


def _weigh(group: Group, measure: Timed) -> tuple[list[Spread], list[str]]:
    """How well this figure is known of the hosts that have it, and which those are; of one alone
    nothing can be told."""
    known = {host: group.figures(host, measure) for host in group.members}
    usable = {host: figures for host, figures in known.items() if figures is not None}
    if len(usable) < LEAST_HOSTS:
        return [], []
    return moderate(list(usable.values())), list(usable)


def _tell(asked: Asked, unlike: Unlike, p_value: float) -> LikeMeasure:
    def percent(log: float) -> float:
        return 100 * math.expm1(log)

    return LikeMeasure(
        measure=asked.measure,
        level=math.exp(asked.spreads[asked.at].mean),
        difference_pct=percent(unlike.difference),
        interval_pct=(percent(unlike.low), percent(unlike.high)),
        p_value=p_value,
        outcome=_decide(unlike, p_value),
    )


def _decide(unlike: Unlike, p_value: float) -> Outcome:
    enough = abs(unlike.difference) >= math.log1p(MIN_EFFECT_PCT / 100)
    if p_value > FAMILY_ALPHA or not enough:
        return "alike"
    return "slower" if unlike.p_higher < unlike.p_lower else "faster"


def _sum_up(host: Host, groups: Sequence[Group], placed: Sequence[Placed]) -> Speed:
    own = [one for one in placed if one[1].host == host.title]
    if not own:
        return Speed(None, tell_difference(host.title, groups))
    outcomes = {row.outcome for _, row in own}
    found: tuple[Outcome, Outcome] = ("slower", "faster")
    for wanted in found:
        if wanted in outcomes:
            strange = [one for one in own if one[1].outcome == wanted]
            return Speed(wanted, _attribute(strange, wanted))
    return Speed("alike", "")


def _attribute(placed: Sequence[Placed], outcome: Outcome) -> str:
    """Where a difference comes from, as far as the reference network tells."""
    told = [(_outcome_of(row, "latency"), _outcome_of(row, "ratio")) for _, row in placed]
    if not any(ratio for _, ratio in told):
        return "where from is open: no reference network was timed with it"
    if all(latency != outcome for latency, _ in told):
        higher = "higher" if outcome == "slower" else "lower"
        return f"only its ratio to the reference network is {higher}, its latency is not"
    host = any(_judge_reference(*one, len(placed)) == outcome for one in placed)
    model = any(latency == ratio == outcome for latency, ratio in told)
    if host and model:
        return (
            f"the host and the model: the reference network is {outcome}, and the ratio to it too"
        )
    if host:
        return f"the host: the reference network is {outcome} there too"
    if model:
        return f"the model: {outcome} beside the reference too; look at its runtime and settings"
    return "where from is open: neither the reference network nor the ratio to it differs for sure"


def _outcome_of(row: LikeRow, measure: Measure) -> Outcome | None:
    found = row.measure(measure)
    return found.outcome if found else None


def _judge_reference(group: Group, row: LikeRow, asked: int) -> Outcome:
    """How fast the reference network is on a host beside its like; so many are asked about."""
    spreads, names = _weigh(group, "reference")
    if row.host not in names:
        return "alike"
    unlike = find_unlike(spreads, names.index(row.host), FAMILY_ALPHA)
    return _decide(unlike, asked * unlike.p_value)
