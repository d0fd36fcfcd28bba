"""Visits of a service: a short load each, which gives one figure.

For throughput the rate grows until the p99 is over the limit or the line is full; what came of the
answers until then is the rate that the service carried. For p99 the rate is constant. Both are
kept as milliseconds, 1000 / rate and the p99 itself, of which less is better. The p99 of one visit
is that of few requests (`count_requests`): it ranks services, and holds no rare stall.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opslib.ops.served_sweep.answers import AnswerError, Reference, check_failures
from opslib.ops.served_sweep.record import Goal
from opslib.serving.load import LoadPlan, LoadResult
from opslib.serving.load_sending import run_load
from opslib.serving.ramp import find_carried
from opslib.serving.staging import RunningService
from opslib.timing.blocks import paused_garbage_collection
from opslib.timing.rounds import VisitTimes
from opslib.timing.station import RacerError
from opslib.timing.workers import Worker

SPARE_CONNECTIONS = 8  # more than a service has places, so that its line can be full
MOST_CONNECTIONS = 256
LOAD_S = 0.3
FEWEST_REQUESTS = 100
BURST_CONNECTIONS, BURST_REQUESTS = 16, 32
# A ramp begins below what is expected and could go far over it; in the time of a load it grows by
# a share of what is expected.
FROM, TO, GROWTH = 0.75, 4.0, 0.6
SLOWER, MOST_SLOWER = 3.0, 3
SETTLING = 0.1  # of a load at a constant rate, that does not count
MOST_LOAD_S = 300.0


@dataclass
class Loader:
    """The process that sends all loads, and how late it was itself: a 99th percentile for each."""

    worker: Worker
    images: tuple[Path, ...]
    late_ms: list[float] = field(default_factory=list)

    def send(self, service: RunningService, **plan: object) -> LoadResult:
        """Send a load and return what came of it."""
        given = {"url": service.url, "images": self.images, **plan}
        whole = LoadPlan.model_validate(given)
        result = self.worker.call(_send_calmly, whole, service.key, timeout_s=MOST_LOAD_S)
        late = [one.sent_late_ms for one in result.samples if one.sent_late_ms is not None]
        if whole.rate_per_s is not None and late:
            self.late_ms.append(float(np.quantile(late, 0.99)))
        return result


def _send_calmly(plan: LoadPlan, key: str) -> LoadResult:
    with paused_garbage_collection():
        return run_load(plan, key)


@dataclass
class Visits:
    """The visits of one running service, `number` in its race; `expected_per_s` is what it is
    thought to carry, and follows what it did carry; `places` is how many requests it takes on at
    once, those that wait included. For throughput the burst that told it is the first visit."""

    number: int
    service: RunningService
    loader: Loader
    goal: Goal
    reference: Reference
    expected_per_s: float
    places: int
    fresh: bool = True

    def __call__(self, _runs: int) -> VisitTimes:
        """Load the service once. Raises RacerError: it failed requests, answered otherwise than it
        must, or cannot keep its p99 within the limit at all."""
        started, fresh, self.fresh = time.perf_counter(), self.fresh, False
        if fresh and self.goal.objective == "throughput":
            return VisitTimes((1000 / self.expected_per_s,), 0.0, None)
        try:
            time_ms = self._carry() if self.goal.rate_per_s is None else self._hold()
        except AnswerError as error:
            raise RacerError(self.number, error) from error
        return VisitTimes((time_ms,), time.perf_counter() - started, None)

    def _carry(self) -> float:
        limit_ms, lowest = self.goal.p99_limit_ms or 0.0, self.expected_per_s / SLOWER**MOST_SLOWER
        while self.expected_per_s >= lowest:
            result = self._send(**plan_ramp(self.expected_per_s), limit_ms=limit_ms)
            check_failures(result.samples, overload=True)
            carried = find_carried(result.samples, limit_ms)
            if carried.rate_per_s is None:
                self.expected_per_s /= SLOWER
            elif not carried.passed_limit:
                self.expected_per_s *= TO
            else:
                # Halfway: one load that was disturbed must not spoil where the next one begins.
                self.expected_per_s = math.sqrt(self.expected_per_s * carried.rate_per_s)
                return 1000 / carried.rate_per_s
        raise AnswerError(
            f"its p99 is over {limit_ms:g} ms at {FROM * lowest * SLOWER:.3g} requests a second too"
        )

    def _hold(self) -> float:
        rate = self.goal.rate_per_s or 0.0
        counted = count_requests(rate)
        result = self._send(rate_per_s=rate, requests=int(counted * (1 + SETTLING)))
        check_failures(result.samples)
        latencies = [one.latency_ms for one in result.samples[-counted:]]
        return float(np.quantile(latencies, 0.99))

    def _send(self, **plan: object) -> LoadResult:
        connections = min(MOST_CONNECTIONS, self.places + SPARE_CONNECTIONS)
        open_ones = {"connections": connections, "opened": connections}
        result = self.loader.send(self.service, **open_ones, **plan)
        self.reference.check(result.samples)
        return result


def count_requests(rate_per_s: float) -> int:
    """Return of how many requests the p99 of one visit at a constant rate is."""
    return max(FEWEST_REQUESTS, int(rate_per_s * LOAD_S))


def plan_ramp(expected_per_s: float) -> dict[str, float | int]:
    """Return the fields of a plan whose rate grows past what a service is expected to carry."""
    load_s = max(LOAD_S, FEWEST_REQUESTS / 2 / expected_per_s)
    return {
        "rate_per_s": FROM * expected_per_s,
        "ramp_to_per_s": TO * expected_per_s,
        "requests": int((TO**2 - FROM**2) / (2 * GROWTH) * expected_per_s * load_s),
    }


def send_burst(service: RunningService, loader: Loader, images: Sequence[Path]) -> LoadResult:
    """Send images at once, so that the service answers several in one run where it may. Raises
    AnswerError: a request failed."""
    result = loader.send(
        service,
        images=tuple(images),
        rate_per_s=None,
        requests=max(BURST_REQUESTS, 2 * len(images)),
        connections=BURST_CONNECTIONS,
    )
    check_failures(result.samples)
    return result
