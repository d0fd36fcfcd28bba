"""A benchmark held against all comparable ones before it.

What counts is each row's ratio to the reference network. The level of that ratio and what differs
from run to run are estimated from history (`timing/between.py`); the rows of a run, and the rows of
one engine and boundary taken together, are judged as one family: in one of a hundred runs in which
nothing changed, at most, anything is raised. Hosts have moments that no such model knows, so what
is raised must also be stranger than anything in the runs before it: by chance that is one run of
n + 1 after n runs, and at most one of forty after 39 and more. Records from before there was a
reference are compared with the last one like them.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from opslib.core.language import tr
from opslib.ops.bench.attribution import Moved, attribute
from opslib.ops.bench.cells import BOUNDARIES
from opslib.ops.bench.comparable import Held, hold, refuse_model
from opslib.ops.bench.compare import (
    MIN_EFFECT_PCT,
    Outcome,
    RecordComparison,
    RowComparison,
    compare_records,
)
from opslib.ops.bench.record import BenchRecord, BenchRow
from opslib.timing.between import FEWEST_RUNS, Level, find_level, holm

FAMILY_ALPHA = 0.01
ONE_OF = 40


def judge_record(
    new: BenchRecord, earlier: Sequence[BenchRecord], *, across_models: bool = False
) -> RecordComparison:
    """Return what is better or worse than in the `earlier` records, the newest first.

    `across_models`: held against runs of another model too, where there are none of this one.
    """
    if all(row.relative is None for row in new.rows):
        return _compare_with_last(new, earlier, across_models)
    held: list[Held] = []
    refused: list[RowComparison] = []
    for row in new.rows:
        found = hold(new, row, earlier, across_models)
        if isinstance(found, Held):
            held.append(found)
        else:
            refused.append(_compared(row, outcome="not comparable", reason=found))
    pools = list(_pool(held))
    levels = [one.level for one in (*held, *pools)]
    p_values = [
        level.p_value(*one.figure, one.degrees)
        for one, level in zip((*held, *pools), levels, strict=True)
    ]
    family = 1 - FAMILY_ALPHA / max(1, len(p_values))
    judged = [
        _judge(one, level, p_value, family, strange=strange)
        for one, level, p_value, strange in zip(
            (*held, *pools), levels, holm(p_values), _stand_out((*held, *pools)), strict=True
        )
    ]
    changed = {name: text for one in held for name, text in one.changed.items()}
    return RecordComparison(
        rows=tuple(judged[: len(held)] + refused + judged[len(held) :]),
        runs=max((len(one.before) for one in held), default=0),
        changed=changed,
        notes=tuple(_tell(changed)),
        attribution=attribute(_list_moved(new, earlier, held, judged)),
        confidence=family,
    )


def _pool(held: Iterable[Held]) -> Iterable[Held]:
    """Yield the rows of each engine and boundary as one: every row weighs what it is worth."""

    def which(one: Held) -> tuple[str, str, str]:
        return (one.rows[0].engine, one.rows[0].provider, one.rows[0].boundary)

    for _, group in groupby(sorted(held, key=which), key=which):
        members = list(group)
        common = set.intersection(*(set(one.before) for one in members))
        if len(members) < 2 or len(common) < FEWEST_RUNS:
            continue
        raw = [1 / (one.level.tau2 + one.figure[1]) for one in members]
        weights = [one / sum(raw) for one in raw]

        def mix(
            figures: Sequence[tuple[float, float]], weights: Sequence[float] = weights
        ) -> tuple[float, float]:
            pairs = list(zip(weights, figures, strict=True))
            return sum(w * f[0] for w, f in pairs), sum(w * w * f[1] for w, f in pairs)

        parts = [
            (w * w * one.figure[1], one.degrees) for w, one in zip(weights, members, strict=True)
        ]
        own = mix([one.figure for one in members])
        yield Held(
            tuple(row for one in members for row in one.rows),
            own,
            own[1] ** 2 / sum(part**2 / degrees for part, degrees in parts),
            {at: mix([one.before[at] for one in members]) for at in sorted(common)},
            None,
            members[0].changed,
        )


def _stand_out(held: Sequence[Held]) -> list[bool]:
    """Whether each figure is stranger than the strangest of all runs before; with 79 runs and more
    than the second strangest, and so on for every forty.

    All runs, the new one among them, are held against one level: if nothing changed each of them
    is as likely as any other to be the strangest, whatever the figures are distributed like. So
    chance lets one run of n + 1 through after n runs, and after 39 and more at most one of forty.
    """
    own: list[float] = []
    strangest: dict[int, float] = {}
    for one in held:
        level = find_level(*zip(*one.before.values(), one.figure, strict=True))
        own.append(level.p_value(*one.figure))
        for at, figure in one.before.items():
            strangest[at] = min(level.p_value(*figure), strangest.get(at, 1.0))
    spared = max(0, (len(strangest) + 1) // ONE_OF - 1)
    bar = sorted(strangest.values())[spared] if strangest else 0.0
    return [p_value < bar for p_value in own]


def _judge(
    held: Held, level: Level, p_value: float, family: float, *, strange: bool
) -> RowComparison:
    change = held.figure[0] - level.mean
    low, high = level.limits(held.figure[1], family, held.degrees)
    outcome: Outcome = "no measurable change"
    reason = None
    if p_value <= FAMILY_ALPHA and abs(change) >= math.log1p(MIN_EFFECT_PCT / 100):
        if strange:
            outcome = "worse" if change > 0 else "better"
        else:
            reason = tr("a run before it stood out as much")
    return _compared(
        held.rows[0],
        batch_size=held.rows[0].batch_size if len(held.rows) == 1 else None,
        outcome=outcome,
        reason=reason,
        baseline_p50_ms=held.p50_before_ms,
        candidate_p50_ms=held.rows[0].p50_ms if len(held.rows) == 1 else None,
        latency_ratio=math.exp(change),
        latency_ratio_ci99=(
            math.exp(held.figure[0] - high),
            math.exp(held.figure[0] - low),
        ),
        min_effect_pct=MIN_EFFECT_PCT,
        runs=len(held.before),
    )


def _compared(row: BenchRow, **found: object) -> RowComparison:
    facts = {name: getattr(row, name) for name in ("engine", "provider", "batch_size", "boundary")}
    return RowComparison.model_validate(facts | found)


def _list_moved(
    new: BenchRecord,
    earlier: Sequence[BenchRecord],
    held: Sequence[Held],
    judged: Sequence[RowComparison],
) -> list[Moved]:
    """Return for each engine how far its model and its reference lie from where they were."""
    moved = []
    for engine in dict.fromkeys(row.engine for row in new.rows):
        alone, whole = (
            [one for one in held if (one.rows[0].engine, one.rows[0].boundary) == (engine, which)]
            for which in BOUNDARIES
        )
        if not alone:
            continue
        raised = {
            one.boundary
            for one in judged
            if one.engine == engine and one.outcome in ("worse", "better")
        }
        shifts = [_reference_shift(one, earlier) for one in alone]
        moved.append(
            Moved(
                engine=engine,
                model_pct=_middle_shift_pct(alone),
                model_moved="inference" in raised,
                end_to_end_pct=_middle_shift_pct(whole) if "end_to_end" in raised else None,
                reference_pct=100 * math.expm1(statistics.median(one for one, _ in shifts)),
                reference_spread_pct=100 * math.expm1(statistics.median(one for _, one in shifts)),
            )
        )
    return moved


def _middle_shift_pct(held: Sequence[Held]) -> float:
    """How far these figures lie from where they were, in the middle."""
    return 100 * math.expm1(statistics.median(one.figure[0] - one.level.mean for one in held))


def _reference_shift(held: Held, earlier: Sequence[BenchRecord]) -> tuple[float, float]:
    """How far the reference's own latency lies from its median before, and how far runs do."""
    row = held.rows[0]
    logs = [
        math.log(one.relative.reference_ms)
        for at in held.before
        for one in earlier[at].rows
        if one.key == row.key and one.relative
    ]
    middle = statistics.median(logs)
    spread = statistics.median(abs(one - middle) for one in logs)
    now = row.relative.reference_ms if row.relative else 1.0
    return math.log(now) - middle, spread


def _compare_with_last(
    new: BenchRecord, earlier: Sequence[BenchRecord], across_models: bool
) -> RecordComparison:
    """Compare a record without a reference with the last one that can be compared, of the same
    models before one of others."""
    plain = [one for one in earlier if all(row.relative is None for row in one.rows)]
    plain.sort(key=lambda one: bool(_other_models(one, new)))
    found = [(one, compare_records(one, new, across_models=across_models)) for one in plain]
    if not found:
        none = tr("no run before it was measured without a reference network too")
        refused = [_compared(row, outcome="not comparable", reason=none) for row in new.rows]
        return RecordComparison(rows=tuple(refused), runs=0)
    old, comparison = next((one for one in found if one[1].comparable), found[0])
    changed = _other_models(old, new)
    return comparison.model_copy(
        update={
            "against_utc": old.lineage.created_at_utc,
            "changed": changed,
            "notes": tuple(_tell(changed)),
        }
    )


def _other_models(old: BenchRecord, new: BenchRecord) -> dict[str, str]:
    """What the first engine runs that ran another model before, as a change by name."""
    for engine in dict.fromkeys(row.engine for row in new.rows):
        was, now = old.model_of(engine), new.model_of(engine)
        if was and now and refuse_model(old, new, engine):
            return {"model": f"{was.label} → {now.label}"}
    return {}


def _tell(changed: Mapping[str, str]) -> Iterable[str]:
    return (
        tr("changed since then: {name}, {change}", name=tr(name), change=text)
        for name, text in changed.items()
    )
