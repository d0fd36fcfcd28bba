"""Interleaved rounds: every arm is visited once a round, in a new random order each round.

A visit is a few runs of one arm. Whether they happen in this process or in a worker, the rounds
do not know: they get one `Visit` per arm.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from opslib.timing.blocks import Call, paused_garbage_collection, time_runs
from opslib.timing.disturbance import read_thread_delays_s, share_pct, worst_growth_s
from opslib.timing.workers import Worker

FAST_RUN_MS = 1.0
FAST_ROUNDS, FAST_RUNS = 40, 10
SLOW_ROUNDS, SLOW_RUNS = 20, 5
MIN_ROUNDS, MIN_RUNS_PER_ROUND = 10, 3
DISCARDED_RUNS = 1
PROBE_RUNS = 5
VISIT_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Arm:
    """One side of a comparison. `open` returns a context manager that yields the callable to be
    timed; it is a module-level function or a `functools.partial` of one, so that it can be sent to
    a worker process."""

    label: str
    open: Callable[[], AbstractContextManager[Call]]


@dataclass(frozen=True)
class VisitTimes:
    """Times of one visit's runs, without the discarded ones, and what the visit took in all."""

    times_ms: tuple[float, ...]
    wall_s: float
    run_delay_s: float | None


Visit = Callable[[int], VisitTimes]


@dataclass(frozen=True)
class RoundPlan:
    """How many rounds, and how many timed runs each arm gets in one."""

    rounds: int
    runs_per_round: int


@dataclass(frozen=True)
class Rounds:
    """Median time (ms) of each arm in each round, shape (rounds, arms), and the run delay."""

    plan: RoundPlan
    medians_ms: tuple[tuple[float, ...], ...]
    run_delay_pct: float | None

    def log_ratios(self, baseline: int, candidate: int) -> tuple[float, ...]:
        """Per round the log of baseline time over candidate time: above 0, candidate is faster."""
        return tuple(math.log(row[baseline] / row[candidate]) for row in self.medians_ms)

    def p50_ms(self, arm: int) -> float:
        """Median over the rounds of the arm's median time."""
        return float(np.median([row[arm] for row in self.medians_ms]))


class Deadline:
    """What is left of a time budget; None never ends."""

    def __init__(self, budget_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._budget_s = math.inf if budget_s is None else budget_s

    @property
    def spent_s(self) -> float:
        """Seconds since the budget began."""
        return self._clock() - self._started

    @property
    def left_s(self) -> float:
        """Seconds left, below zero once it is over."""
        return self._budget_s - self.spent_s


def visit_arm(call: Call, runs: int, discarded: int = DISCARDED_RUNS) -> VisitTimes:
    """Time `runs` runs after a discarded run, which pays for the switch from another arm."""
    delays_before = read_thread_delays_s()
    started = time.perf_counter()
    with paused_garbage_collection():
        times_ns = time_runs(call, runs + discarded)
    wall_s = time.perf_counter() - started
    return VisitTimes(
        times_ms=tuple(one / 1e6 for one in times_ns[discarded:]),
        wall_s=wall_s,
        run_delay_s=worst_growth_s(delays_before, read_thread_delays_s()),
    )


@contextmanager
def open_here(arms: Sequence[Arm], rng: np.random.Generator) -> Iterator[list[Visit]]:
    """Open all arms in this process, in random order, and yield their visits in arm order."""
    with ExitStack() as stack:
        calls: dict[int, Call] = {}
        for index in rng.permutation(len(arms)):
            calls[index] = stack.enter_context(arms[index].open())
        yield [partial(visit_arm, calls[index]) for index in range(len(arms))]


@contextmanager
def open_in_workers(arms: Sequence[Arm], rng: np.random.Generator) -> Iterator[list[Visit]]:
    """Open each arm in a fresh process of its own and yield the visits in arm order."""
    with ExitStack() as stack:
        workers: dict[int, Worker] = {}
        for index in rng.permutation(len(arms)):
            workers[index] = stack.enter_context(Worker(arms[index].label))
            workers[index].call(_open_in_child, arms[index].open, timeout_s=VISIT_TIMEOUT_S)
        yield [
            partial(workers[index].call, _visit_in_child, timeout_s=VISIT_TIMEOUT_S)
            for index in range(len(arms))
        ]


def probe_run_ms(visits: Sequence[Visit]) -> list[float]:
    """Median run time (ms) of each arm after a first visit that warms it up."""
    for visit in visits:
        visit(PROBE_RUNS)
    return [float(np.median(visit(PROBE_RUNS).times_ms)) for visit in visits]


def plan_rounds(run_ms: Sequence[float], available_s: float = math.inf) -> RoundPlan:
    """Rounds and runs that fit into the available time, for arms of these run times. The rounds
    carry the statistics, so runs are given up first."""
    rounds, runs = (
        (FAST_ROUNDS, FAST_RUNS) if max(run_ms) < FAST_RUN_MS else (SLOW_ROUNDS, SLOW_RUNS)
    )
    pass_s = sum(run_ms) / 1000
    while runs > MIN_RUNS_PER_ROUND and rounds * (runs + DISCARDED_RUNS) * pass_s > available_s:
        runs -= 1
    round_s = (runs + DISCARDED_RUNS) * pass_s
    if rounds * round_s > available_s:
        rounds = max(MIN_ROUNDS, int(available_s / round_s))
    return RoundPlan(rounds, runs)


def run_rounds(
    visits: Sequence[Visit], plan: RoundPlan, rng: np.random.Generator, deadline: Deadline
) -> Rounds:
    """Visit every arm once a round, in random order, until the plan or the budget ends. Two rounds
    are run in any case, so that there is something to report."""
    rows: list[tuple[float, ...]] = []
    wall_s = 0.0
    delays_s: list[float | None] = []
    while len(rows) < plan.rounds and (len(rows) < 2 or deadline.left_s > 0):
        medians_ms = [0.0] * len(visits)
        for index in rng.permutation(len(visits)):
            seen = visits[index](plan.runs_per_round)
            medians_ms[index] = float(np.median(seen.times_ms))
            wall_s += seen.wall_s
            delays_s.append(seen.run_delay_s)
        rows.append(tuple(medians_ms))
    known_s = [delay for delay in delays_s if delay is not None]
    delay_s = sum(known_s) if len(known_s) == len(delays_s) else None
    return Rounds(plan, tuple(rows), share_pct(delay_s, wall_s))


_child_stack = ExitStack()
_child_calls: list[Call] = []


def _open_in_child(open_arm: Callable[[], AbstractContextManager[Call]]) -> None:
    _child_calls.append(_child_stack.enter_context(open_arm()))


def _visit_in_child(runs: int) -> VisitTimes:
    return visit_arm(_child_calls[-1], runs)
