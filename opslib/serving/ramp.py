"""A load whose rate grows: when each request is due, when it was too much, what was carried.

Beyond what a service carries, its line grows with the rate, and so does the wait. The rate at which
the answers came, while they still came in time, is what it carries.
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from opslib.serving.load import LoadPlan, Sample

WINDOW = 100
LATE_ALLOWED = 1
LAST_SHARE = 3  # one of so many answers, the last ones, tells the rate
FEWEST_ANSWERS = 5


def due_s(plan: LoadPlan, index: int) -> float:
    """Return when request `index` of an open loop is due, in seconds from the first one.

    Under a ramp the rate grows with time, so that its square grows with the requests sent.
    """
    start = plan.rate_per_s or 1.0
    if plan.ramp_to_per_s is None:
        return index / start
    grown = (plan.ramp_to_per_s**2 - start**2) * index / plan.requests
    return 2 * index / (start + math.sqrt(start**2 + grown))


def is_late(sample: Sample, limit_ms: float) -> bool:
    """Whether a request was answered after the limit, or not at all."""
    return sample.failed or sample.latency_ms > limit_ms


class LateWatch:
    """Requests in a row, of which more than one in a hundred may not be late: their p99."""

    def __init__(self) -> None:
        self._row: deque[bool] = deque(maxlen=WINDOW)

    def add(self, late: bool) -> bool:
        """Take the next one; return whether the p99 of the last hundred is over the limit."""
        self._row.append(late)
        return late and sum(self._row) > LATE_ALLOWED


@dataclass(frozen=True)
class Carried:
    """What a load showed: how many answers a second came while they came in time (None: too few to
    tell), and whether the limit was passed in the end."""

    rate_per_s: float | None
    passed_limit: bool


def find_carried(samples: Sequence[Sample], limit_ms: float) -> Carried:
    """Return the rate that a service carried with its p99 within a limit.

    Args:
        samples: all requests of a load whose rate grew, in the order in which they were due.
        limit_ms: for the p99 of any hundred requests in a row.
    """
    late = [is_late(one, limit_ms) for one in samples]
    watch = LateWatch()
    end = next((index for index, one in enumerate(late) if watch.add(one)), None)
    until_s = math.inf
    if end is not None:
        row = range(max(0, end + 1 - WINDOW), end + 1)
        until_s = _answered_s(samples[next(index for index in row if late[index])])
    good = [
        (float(index), _answered_s(one))
        for index, one in enumerate(samples)
        if not late[index] and _answered_s(one) <= until_s
    ]
    return Carried(_rate_of(good[-(len(good) // LAST_SHARE) :]), end is not None)


def _rate_of(answers: Sequence[tuple[float, float]]) -> float | None:
    """Answers a second, of pairs of a request's number and the moment of its answer, by the slope
    of a line through them: answers that come in bunches bend it least."""
    if len(answers) < FEWEST_ANSWERS:
        return None
    each_s = statistics.linear_regression(*zip(*answers, strict=True)).slope
    return 1 / each_s if each_s > 0 else None


def _answered_s(sample: Sample) -> float:
    return sample.due_s + sample.latency_ms / 1000
