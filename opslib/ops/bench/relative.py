"""The latency of a row against the reference network's, from the rounds of all passes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from opslib.ops.bench.record import Relative
from opslib.timing.blocks import Boundary
from opslib.timing.station import RelatedTimes
from opslib.timing.stats import student_interval, trimmed_mean

_PLACES: dict[Boundary, int] = {"inference": 0, "end_to_end": 1}


def summarize_relative(passes: Sequence[RelatedTimes], boundary: Boundary) -> Relative | None:
    """Return what the passes say of one boundary, or None where there is none.

    The passes are the sample: between them both networks are loaded anew and other configurations
    are measured, and what that changes is what differs from run to run.
    """
    if not passes:
        return None
    at = _PLACES[boundary]
    logs = [[math.log(one[at] / one[2]) for one in each.rounds_ms] for each in passes]
    means = [trimmed_mean(one) for one in logs]
    centre, interval = statistics.fmean(means), student_interval(means)
    known = math.isfinite(interval.half_width)
    return Relative(
        ratio=math.exp(centre),
        ci95=(math.exp(interval.low), math.exp(interval.high)) if known else None,
        half_width_pct=100 * math.expm1(interval.half_width) if known else None,
        reference_ms=statistics.median(one[2] for each in passes for one in each.rounds_ms),
        log_ratios=tuple(tuple(float(f"{one:.4g}") for one in each) for each in logs),
    )
