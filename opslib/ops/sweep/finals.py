"""The finals: who is left of a race, measured again in fresh processes, and who is tied.

Rounds are added until every finalist is either clearly slower than the fastest or proven to lie
within the margin, and the gain over the first finalist (the default) is known narrowly, or the
time is over.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from opslib.core.errors import OpsError
from opslib.inference.engine import EngineRequest
from opslib.timing.paired import Limits
from opslib.timing.racing import runs_for
from opslib.timing.rounds import MIN_ROUNDS, Deadline, RoundPlan, Visit, run_rounds
from opslib.timing.station import RacerError, Station, Workload
from opslib.timing.stats import Interval, bootstrap_interval, student_interval, trimmed_mean

WARMUP_RUNS = 2
CHUNK_ROUNDS = 5
MIN_PAIRS = 4
MAX_ROUNDS = 60
MAX_HALF_WIDTH_PCT = 3.0


@dataclass(frozen=True)
class Finals:
    """Median time (ms) of each finalist in each round, shape (rounds, finalists)."""

    medians_ms: tuple[tuple[float, ...], ...]
    run_delay_pct: float | None

    def times_ms(self, index: int) -> tuple[float, ...]:
        """One finalist's times."""
        return tuple(row[index] for row in self.medians_ms)


@dataclass(frozen=True)
class Ranking:
    """Finalists by index: the fastest, those tied with it (itself too), those undecided."""

    best: int
    tied: tuple[int, ...]
    unclear: tuple[int, ...]


def measure_finalists(
    requests: Sequence[EngineRequest],
    work: Workload,
    *,
    deadline: Deadline,
    rng: np.random.Generator,
    margin_pct: float,
    rounds: int | None = None,
) -> Finals:
    """Return the rounds of finalists that each live in a process of their own. `rounds`: exactly
    this many, whatever they show; by default until all is decided."""
    with ExitStack() as stack:
        visits: list[Visit] = []
        for number, request in enumerate(requests):
            station = stack.enter_context(Station(f"finalist {number + 1}"))
            try:
                station.load(request, work, number, try_out=False)
            except OpsError as error:
                raise RacerError(number, error) from error
            visits.append(station.racer(number))
        return run_finals(visits, deadline=deadline, rng=rng, margin_pct=margin_pct, rounds=rounds)


def run_finals(
    visits: Sequence[Visit],
    *,
    deadline: Deadline,
    rng: np.random.Generator,
    margin_pct: float,
    rounds: int | None = None,
) -> Finals:
    """Return the rounds of these visits; see `measure_finalists`."""
    for visit in visits:
        visit(WARMUP_RUNS)
    run_ms = [float(np.median(visit(WARMUP_RUNS).times_ms)) for visit in visits]
    runs = runs_for(min(run_ms))
    rows: list[tuple[float, ...]] = []
    delays_pct: list[float] = []
    limit = rounds or MAX_ROUNDS
    while len(rows) < limit and (len(rows) < 2 or rounds or deadline.left_s > 0):
        plan = RoundPlan(min(CHUNK_ROUNDS, limit - len(rows)), runs)
        seen = run_rounds(visits, plan, rng, Deadline(None) if rounds else deadline)
        rows += seen.medians_ms
        if seen.run_delay_pct is not None:
            delays_pct.append(seen.run_delay_pct)
        if rounds is None and is_settled(rows, margin_pct):
            break
    return Finals(tuple(rows), float(np.median(delays_pct)) if delays_pct else None)


def is_settled(rows: Sequence[Sequence[float]], margin_pct: float) -> bool:
    """Whether nobody is undecided and the fastest one's gain over the first is known narrowly:
    to 3 %, or to a tenth of itself."""
    standing = rank(rows, margin_pct)
    if len(rows) < MIN_ROUNDS or standing.unclear:
        return False
    gains = [math.log(row[0] / row[standing.best]) for row in rows]
    interval = bootstrap_interval(gains)
    return interval.half_width <= Limits(margin_pct, MAX_HALF_WIDTH_PCT).max_half_width(
        trimmed_mean(gains)
    )


def rank(rows: Sequence[Sequence[float]], margin_pct: float) -> Ranking:
    """Return who is fastest, who is tied with it and who is undecided. Tied: the 95 % interval of
    the difference lies within the margin, or it includes zero and is narrower than 3 % to each
    side. Undecided: it includes zero and is wider, or there are fewer than ten rounds."""
    logs = np.log(np.asarray(rows, dtype=np.float64))
    mean_logs = [trimmed_mean(list(logs[:, index] - logs[:, 0])) for index in range(logs.shape[1])]
    best = int(np.argmin(mean_logs))
    tied, unclear = [best], []
    for index in range(logs.shape[1]):
        if index == best:
            continue
        interval = bootstrap_interval(list(logs[:, best] - logs[:, index]))
        verdict = judge_tie(interval, margin_pct) if len(rows) >= MIN_ROUNDS else "unclear"
        if verdict == "tied":
            tied.append(index)
        elif verdict == "unclear":
            unclear.append(index)
    return Ranking(best, tuple(sorted(tied)), tuple(unclear))


def judge_tie(interval: Interval, margin_pct: float) -> str:
    """Return `tied`, `slower` or `unclear` for an interval of log speed ratios."""
    margin = math.log1p(margin_pct / 100)
    if interval.low >= -margin and interval.high <= margin:
        return "tied"
    if not interval.contains(0):
        return "slower"
    narrow = interval.half_width <= math.log1p(MAX_HALF_WIDTH_PCT / 100)
    return "tied" if narrow else "unclear"


def speedup_interval(
    default_ms: Sequence[float], times_ms: Sequence[float], fewest: int = MIN_PAIRS
) -> tuple[float, tuple[float, float] | None]:
    """Return default time over time for paired rounds, with its 95 % interval. Ten rounds and more:
    trimmed mean with a bootstrap; fewer: Student's t; below `fewest`: none."""
    logs = [math.log(one / other) for one, other in zip(default_ms, times_ms, strict=True)]
    speedup = math.exp(trimmed_mean(logs))
    if len(logs) < fewest:
        return speedup, None
    many = len(logs) >= MIN_ROUNDS
    interval = bootstrap_interval(logs) if many else student_interval(logs)
    return speedup, (math.exp(interval.low), math.exp(interval.high))
