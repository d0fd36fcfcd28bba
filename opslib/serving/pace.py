"""Whether requests that wait are answered faster together: learned while they wait, a model at a
time, since it depends on the network, the host and what else runs there.

On a card a run of eight takes little longer than a run of one; on a processor whose caches hold one
image's activations and not eight, each of them takes longer together.
"""

import statistics
from collections import deque

KEPT = 15  # times that an estimate is the median of
TRIED_EVERY = 16  # runs, the way that was slower, as it need not stay so


class Pace:
    """Times of an image in runs of several requests and in runs of one, both while others waited.

    `together`: whether the next run should hold several requests; both ways are tried first. It is
    worked out when a time is kept, so that who asks while nobody waits pays nothing. Several
    threads may use it: what one loses to another is a single time among many.
    """

    def __init__(self) -> None:
        self._together_ms = deque[float](maxlen=KEPT)
        self._alone_ms = deque[float](maxlen=KEPT)
        self._runs = 0
        self.together = True

    def note(self, ms: float, *, together: bool) -> None:
        """Keep how long an image took, decoding included, in a run of one request or of several."""
        self._runs += 1
        (self._together_ms if together else self._alone_ms).append(ms)
        self.together = self._decide()

    def _decide(self) -> bool:
        if len(self._together_ms) < KEPT:
            return True
        if len(self._alone_ms) < KEPT:
            return False
        faster = statistics.median(self._together_ms) <= statistics.median(self._alone_ms)
        return faster != (self._runs % TRIED_EVERY == 0)
