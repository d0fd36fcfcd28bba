"""How many instances a load needs, worked out from what one of them was measured to do."""

from __future__ import annotations

import math

from opslib.core.errors import ParameterError

DEFAULT_SHARE = 0.6
DEFAULT_SPARE = 1


def instances_needed(
    peak_per_s: float,
    capacity_per_s: float,
    *,
    share: float = DEFAULT_SHARE,
    spare: int = DEFAULT_SPARE,
) -> int:
    """Return the instances that carry `peak_per_s` requests a second.

    Args:
        peak_per_s: requests a second at the busiest time.
        capacity_per_s: requests a second that one instance answers when it is kept busy.
        share: how much of that an instance shall carry, so that its latency stays low.
        spare: instances that may be down or changing their model at that time.

    Raises:
        ParameterError: a value is impossible.
    """
    if not (peak_per_s >= 0 and capacity_per_s > 0 and math.isfinite(peak_per_s / capacity_per_s)):
        raise ParameterError("peak and capacity are requests a second; the capacity is above 0")
    if not 0 < share <= 1 or spare < 0:
        raise ParameterError("share lies above 0 and up to 1, spare is 0 or more")
    return max(1, math.ceil(peak_per_s / (share * capacity_per_s))) + spare
