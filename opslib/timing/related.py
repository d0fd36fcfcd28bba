"""Two calls timed in turn, round after round: how much longer one takes, whatever slows both.

A round in which a thread waited for a CPU says more about the neighbours than about the calls;
where enough calm ones are left, the others are left out, by that wait and never by their times.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from opslib.timing.disturbance import is_disturbed, share_pct
from opslib.timing.rounds import visit_arm
from opslib.timing.stats import Interval, trimmed_interval

FEWEST_ROUNDS = 5
FEWEST_CALM = 10
VISIT_S = 0.004
MOST_RUNS = 10
VISIT_TRIES = 4

Call = Callable[[], object]


class Round(NamedTuple):
    """Median milliseconds of a call and of the reference's, and whether no thread waited."""

    ms: float
    reference_ms: float
    calm: bool = True

    @property
    def log_ratio(self) -> float:
        """Logarithm of how many times as long the call takes."""
        return math.log(self.ms / self.reference_ms)


def choose_rounds(rounds: Sequence[Round]) -> list[Round]:
    """Return the calm rounds where there are at least ten, else all of them."""
    calm = [one for one in rounds if one.calm]
    return calm if len(calm) >= FEWEST_CALM else list(rounds)


def log_ratio_interval(rounds: Sequence[Round]) -> Interval | None:
    """Return the 95 % interval of the log ratio, or None where five rounds are not there yet."""
    logs = [one.log_ratio for one in choose_rounds(rounds)]
    return trimmed_interval(logs) if len(logs) >= FEWEST_ROUNDS else None


def is_settled(rounds: Sequence[Round], target_half_width_pct: float, fewest: int) -> bool:
    """Whether the ratio is known to the target, from at least `fewest` rounds."""
    if len(choose_rounds(rounds)) < fewest:
        return False
    interval = log_ratio_interval(rounds)
    return interval is not None and interval.half_width <= math.log1p(target_half_width_pct / 100)


def time_in_turn(
    pairs: Sequence[tuple[Call, Call]],
    known: Sequence[Sequence[Round]],
    *,
    seconds: float,
    targets_pct: Sequence[float],
    fewest: int,
) -> list[list[Round]]:
    """Return further rounds of each pair of calls (the second is the reference's).

    Each pair is visited once a round, in random order, until its ratio is settled together with
    what is `known` of it, from at least `fewest` rounds, or `seconds` are over; five are made in
    any case. All are brought to the first, widest target before any is to the next. A visit
    takes a few milliseconds and its first run, which pays for the switch, is discarded; what runs
    longer than that is run once.
    """
    plans = [[(call, _fitting_runs(call)) for call in pair] for pair in pairs]
    found: list[list[Round]] = [[] for _ in pairs]
    rng, until = np.random.default_rng(), time.monotonic() + seconds

    def has_few(at: int) -> bool:
        return len(known[at]) + len(found[at]) < FEWEST_ROUNDS

    def choose_open() -> list[int]:
        few = [at for at in range(len(pairs)) if has_few(at)]
        if few or time.monotonic() >= until:
            return few
        for target_pct in targets_pct:
            wide = [
                at
                for at, rounds in enumerate(found)
                if not is_settled([*known[at], *rounds], target_pct, fewest)
            ]
            if wide:
                return wide
        return []

    while open_pairs := choose_open():
        for at in rng.permutation(open_pairs):
            if has_few(at) or time.monotonic() < until:
                found[at].append(_make_round(plans[at], first=int(rng.integers(2))))
    return found


def _make_round(plan: Sequence[tuple[Call, int]], *, first: int) -> Round:
    seen = {side: _visit_calmly(*plan[side]) for side in (first, 1 - first)}
    return Round(seen[0][0], seen[1][0], calm=seen[0][1] and seen[1][1])


def _visit_calmly(call: Call, runs: int) -> tuple[float, bool]:
    """Median milliseconds, and whether no thread waited. A visit during which one did is made
    again: after it the neighbour has most likely had its turn."""
    for _ in range(VISIT_TRIES):
        seen = visit_arm(call, runs, discarded=int(runs > 1))
        calm = not is_disturbed(share_pct(seen.run_delay_s, seen.wall_s))
        if calm:
            break
    return float(np.median(seen.times_ms)), calm


def _fitting_runs(call: Call) -> int:
    call()
    started = time.perf_counter()
    call()
    fitting = VISIT_S / max(1e-7, time.perf_counter() - started)
    return max(1, min(MOST_RUNS, round(fitting)))
