"""A service of known capacity, played: what it does with the requests of a load."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque

from opslib.serving.load import LoadPlan, Sample
from opslib.serving.ramp import due_s

FULL = '{"detail": "busy: 66 requests are in line; try again in 1 s", "code": "queue_full"}'


def serve(
    plan: LoadPlan,
    capacity_per_s: float,
    *,
    workers: int = 1,
    batch: int = 1,
    places: int = 10_000,
    limit_ms: float,
) -> list[Sample]:
    """The requests of a ramp as a service of this capacity answers them: `workers` at a time, up to
    `batch` that wait in one run, 503 where `places` wait. No more is sent past the limit."""
    one_s = workers / capacity_per_s
    free, line, samples = [0.0] * workers, deque[float](), list[Sample]()
    late = 0

    def work(until_s: float) -> int:
        before = len(samples)
        while line and max(free[0], line[0]) < until_s:
            begun = max(heapq.heappop(free), line[0])
            ready = [due for due in itertools.islice(line, batch) if due <= begun]
            done = begun + one_s * len(ready)
            heapq.heappush(free, done)
            for due in ready:
                line.popleft()
                samples.append(Sample(due_s=due, latency_ms=1000 * (done - due), status=200))
        return sum(one.latency_ms > limit_ms for one in samples[before:])

    for index in range(plan.requests):
        due = due_s(plan, index)
        late += work(due)
        full = len(line) >= places
        if late > 1:
            break
        if full:
            late += 1
            samples.append(Sample(due_s=due, latency_ms=1.0, status=503, error=FULL))
        else:
            line.append(due)
    work(math.inf)
    return sorted(samples, key=lambda one: one.due_s)
