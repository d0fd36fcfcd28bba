"""So many requests a minute for each caller, counted without a table that grows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class RateLimit:
    """A token bucket a name: `per_min` requests at once, refilled evenly over a minute."""

    def __init__(self, per_min: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_min = per_min
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> int:
        """Take one request of `name`; return 0, or after how many seconds to try again."""
        now = self._clock()
        tokens, then = self._buckets.get(name, (float(self._per_min), now))
        tokens = min(float(self._per_min), tokens + (now - then) * self._per_min / 60)
        if tokens >= 1:
            self._buckets[name] = (tokens - 1, now)
            return 0
        self._buckets[name] = (tokens, now)
        return max(1, math.ceil((1 - tokens) * 60 / self._per_min))
