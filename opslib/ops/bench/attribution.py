"""Where a change of latency comes from: the model, the preprocessing, the runtime or the host.

The model and the frozen reference network run in the same process with the same options. What
slows one engine's reference is its runtime or settings; what slows it in every engine is the host.
What slows the model end to end alone is what it is fed by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from opslib.core.language import tr
from opslib.ops.bench.compare import describe_shift
from opslib.ops.bench.record import ENGINE_NAMES

TOLD_PCT = 2.0


@dataclass(frozen=True)
class Moved:
    """How far one engine's figures lie from where they were, in percent: the model's ratio to the
    reference in inference, and the reference's own milliseconds. `reference_spread_pct` is how far
    the latter lie from their middle in half of the runs; `model_moved` whether a row of inference
    is better or worse; `end_to_end_pct` the ratio end to end, where a row of that is."""

    engine: str
    model_pct: float
    model_moved: bool
    reference_pct: float
    reference_spread_pct: float
    end_to_end_pct: float | None = None


def attribute(moved: Sequence[Moved]) -> str | None:
    """Return in a sentence what changed and where it comes from; None where nothing is known."""
    if not moved:
        return None
    parts = [
        tr(
            "{engine}: the model itself is {shift} against the reference network in the same "
            "process",
            engine=ENGINE_NAMES[one.engine],
            shift=describe_shift(one.model_pct),
        )
        for one in moved
        if one.model_moved
    ]
    parts += [
        tr(
            "{engine}: end to end is {shift} against the reference network and inference alone is "
            "{alone}: the preprocessing",
            engine=ENGINE_NAMES[one.engine],
            shift=describe_shift(one.end_to_end_pct),
            alone=describe_shift(one.model_pct),
        )
        for one in moved
        if one.end_to_end_pct is not None and not one.model_moved
    ]
    away = [one for one in moved if abs(one.reference_pct) >= TOLD_PCT]
    same_way = len({one.reference_pct > 0 for one in away}) == 1
    if away and len(away) == len(moved) and same_way:
        if len(moved) > 1:
            told = tr("{shift} in both engines: the host", shift=_shifts(away))
        else:
            told = tr("{shift} too: the host or the runtime", shift=_shifts(away))
        parts.append(told if parts else tr("{told}, not the model", told=told))
    elif away:
        parts += [
            tr(
                "{shift} in {engine} alone: the runtime or its settings",
                shift=_shifts([one]),
                engine=ENGINE_NAMES[one.engine],
            )
            for one in away
        ]
    if not parts:
        return tr("Neither the model nor the reference network moved.")
    return "; ".join(parts) + "."


def _shifts(moved: Sequence[Moved]) -> str:
    lowest = min(moved, key=lambda one: abs(one.reference_pct))
    usual = max(one.reference_spread_pct for one in moved)
    told = tr("the reference network is {shift}", shift=describe_shift(lowest.reference_pct))
    if abs(lowest.reference_pct) > 3 * usual:
        return told
    return tr("{told} (runs differ by ±{pct:.0f} %)", told=told, pct=usual)
