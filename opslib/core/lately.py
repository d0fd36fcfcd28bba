"""A look taken again before each deletion, at a cost that does not grow with their number."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
SHARE = 10.0


class Lately(Generic[T]):
    """What `look` found a moment ago: it is asked anew unless the last answer is younger than ten
    times as long as it took.

    What a look costs grows with what there is to look at, and there are as many deletions, so
    that a fresh one for each would cost the square. Most looks take milliseconds; then so old is
    the oldest answer. For what services load from, where even that is too old, see `claims`.
    """

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._found: T | None = None
        self._good_until = 0.0

    def get(self) -> T:
        """Return what was found, looking again where that is too long ago."""
        if self._found is None or time.monotonic() >= self._good_until:
            started = time.monotonic()
            self._found = self._look()
            ended = time.monotonic()
            self._good_until = ended + SHARE * (ended - started)
        return self._found
