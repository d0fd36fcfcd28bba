"""Is the candidate faster than the baseline? One comparison, one verdict, one sentence why.

Both arms run in random order within every round; each round gives one log ratio of medians, and
the verdict rests on their trimmed mean with a bootstrap interval over the rounds. A difference
counts when the interval excludes zero *and* the effect reaches a minimum. What is too noisy is
measured once more and then called inconclusive; a difference that hangs by a thread must show
again in fresh processes.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from opslib.core.errors import UsageError
from opslib.core.records import Record
from opslib.timing.disturbance import is_disturbed
from opslib.timing.rounds import (
    MIN_ROUNDS,
    Arm,
    Deadline,
    Rounds,
    Visit,
    open_here,
    open_in_workers,
    plan_rounds,
    probe_run_ms,
    run_rounds,
)
from opslib.timing.stats import Interval, bootstrap_interval, trimmed_mean

SpeedVerdict = Literal["faster", "slower", "no measurable change", "inconclusive"]
OpenVisits = Callable[[Sequence[Arm], np.random.Generator], AbstractContextManager[list[Visit]]]

DEFAULT_MIN_EFFECT_PCT = 2.0
DEFAULT_MAX_HALF_WIDTH_PCT = 3.0
RELATIVE_HALF_WIDTH = 0.1


class Comparison(Record):
    """The candidate's speed against the baseline's; `speedup` is baseline time / candidate time.
    `log_ratios` are the raw values of the attempt that the verdict rests on, one for each round."""

    schema_name: ClassVar[str] = "comparison"

    baseline: str
    candidate: str
    speedup: float
    speedup_ci95: tuple[float, float]
    half_width_pct: float
    min_effect_pct: float
    verdict: SpeedVerdict
    reason: str
    rounds: int
    runs_per_round: int
    run_delay_pct: float | None
    attempts: int
    confirmed_in_fresh_processes: bool | None
    log_ratios: tuple[float, ...]
    baseline_p50_ms: float
    candidate_p50_ms: float
    wall_s: float


@dataclass(frozen=True)
class Limits:
    """From which effect a difference counts, and how wide an interval may be (both in percent)."""

    min_effect_pct: float = DEFAULT_MIN_EFFECT_PCT
    max_half_width_pct: float = DEFAULT_MAX_HALF_WIDTH_PCT

    def __post_init__(self) -> None:
        if self.min_effect_pct <= 0 or self.max_half_width_pct <= 0:
            raise UsageError(
                f"expected limits above 0 %, got min_effect_pct={self.min_effect_pct} and "
                f"max_half_width_pct={self.max_half_width_pct}"
            )

    @property
    def min_effect(self) -> float:
        """The minimum effect as a log ratio."""
        return math.log1p(self.min_effect_pct / 100)

    def max_half_width(self, effect: float) -> float:
        """Widest half-width, as a log ratio, for an effect: the limit or a tenth of the effect. 2.5
        times as fast, give or take 5 %, is not in doubt."""
        return max(math.log1p(self.max_half_width_pct / 100), RELATIVE_HALF_WIDTH * abs(effect))


@dataclass(frozen=True)
class Finding:
    """What one attempt's log ratios say; `trouble` is why they cannot be relied on, if so."""

    effect: float
    interval: Interval
    claim: SpeedVerdict
    trouble: str | None

    @property
    def near_end(self) -> float:
        """Distance from zero to the interval's nearer end; 0 where the interval includes zero."""
        return max(0.0, self.interval.low, -self.interval.high)


@dataclass(frozen=True)
class _Attempt:
    rounds: Rounds
    finding: Finding
    wall_s: float


def compare_arms(
    baseline: Arm,
    candidate: Arm,
    *,
    min_effect_pct: float = DEFAULT_MIN_EFFECT_PCT,
    max_half_width_pct: float = DEFAULT_MAX_HALF_WIDTH_PCT,
    budget_s: float | None = None,
    seed: int = 0,
    open_visits: OpenVisits = open_here,
) -> Comparison:
    """Compare two arms in interleaved rounds.

    `budget_s`: seconds for everything, retry and confirmation included; a round that has begun is
    finished. `open_visits`: where the arms are visited. `open_here` opens both in this process;
    `open_in_workers` gives each a process of its own, idle while the other is timed, for arms that
    must not share one (Torch's thread pool and ONNX Runtime's).
    """
    limits, deadline = Limits(min_effect_pct, max_half_width_pct), Deadline(budget_s)
    arms = (baseline, candidate)
    rng = np.random.default_rng(seed)

    def attempt(how: OpenVisits, available_s: float) -> _Attempt:
        began_s = deadline.spent_s
        with how(arms, rng) as visits:
            rounds = run_rounds(
                visits, plan_rounds(probe_run_ms(visits), available_s), rng, deadline
            )
        finding = judge(rounds.log_ratios(0, 1), rounds.run_delay_pct, limits, seed)
        return _Attempt(rounds, finding, deadline.spent_s - began_s)

    tries = [attempt(open_visits, deadline.left_s / 2)]
    if tries[0].finding.trouble and deadline.left_s >= tries[0].wall_s:
        tries.append(attempt(open_visits, deadline.left_s))
    trouble = tries[-1].finding.trouble
    confirmed: bool | None = None
    if trouble is None and _is_contested([one.finding for one in tries], limits):
        if deadline.left_s >= tries[-1].wall_s:
            fresh = attempt(open_in_workers, deadline.left_s).finding
            confirmed = fresh.trouble is None and fresh.claim == tries[-1].finding.claim
            if not confirmed:
                trouble = "a second measurement in fresh processes did not confirm it"
        else:
            trouble = "the time budget left no room to confirm it in fresh processes"
    return _report(arms, tries, confirmed, trouble, limits, deadline.spent_s)


def judge(
    log_ratios: Sequence[float], run_delay_pct: float | None, limits: Limits, seed: int = 0
) -> Finding:
    """What one attempt's log ratios say by the rule of this module."""
    effect = trimmed_mean(log_ratios)
    interval = bootstrap_interval(log_ratios, seed=seed)
    narrow = interval.half_width <= limits.max_half_width(effect)
    claim: SpeedVerdict
    if abs(effect) >= limits.min_effect and not interval.contains(0):
        claim = "faster" if effect > 0 else "slower"
    else:
        claim = "no measurable change" if narrow else "inconclusive"
    trouble = None
    if len(log_ratios) < MIN_ROUNDS:
        trouble = f"the time budget ended after {len(log_ratios)} rounds, {MIN_ROUNDS} are needed"
    elif is_disturbed(run_delay_pct):
        trouble = f"the timed thread waited for a CPU during {run_delay_pct:.0f} % of the time"
    elif not narrow:
        trouble = (
            f"the interval is {_half_width_pct(interval):.1f} % wide to each side, "
            f"{limits.max_half_width_pct:g} % is allowed"
        )
    return Finding(effect, interval, claim, trouble)


def _is_contested(findings: Sequence[Finding], limits: Limits) -> bool:
    """Whether a verdict hangs by a thread: barely a difference, or not what the first try said."""
    first, last = findings[0], findings[-1]
    small = last.claim in ("faster", "slower") and last.near_end < limits.min_effect
    return small or first.claim not in ("inconclusive", last.claim)


def _report(
    arms: tuple[Arm, Arm],
    tries: Sequence[_Attempt],
    confirmed: bool | None,
    trouble: str | None,
    limits: Limits,
    wall_s: float,
) -> Comparison:
    baseline, candidate = (arm.label for arm in arms)
    rounds, finding = tries[-1].rounds, tries[-1].finding
    verdict: SpeedVerdict = finding.claim if trouble is None else "inconclusive"
    low, high = math.exp(finding.interval.low), math.exp(finding.interval.high)
    speedup = math.exp(finding.effect)
    reason = (
        f"{candidate} runs at {speedup:.3f} times the speed of {baseline} "
        f"(95 % interval {low:.3f} to {high:.3f})"
    )
    if trouble is not None:
        reason = f"Undecided: {reason}, but {trouble}."
    elif verdict == "no measurable change":
        reason += f": no difference beyond noise that reaches {limits.min_effect_pct:g} %."
    else:
        reason += ", confirmed in fresh processes." if confirmed else "."
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        speedup=speedup,
        speedup_ci95=(low, high),
        half_width_pct=_half_width_pct(finding.interval),
        min_effect_pct=limits.min_effect_pct,
        verdict=verdict,
        reason=reason,
        rounds=len(rounds.medians_ms),
        runs_per_round=rounds.plan.runs_per_round,
        run_delay_pct=rounds.run_delay_pct,
        attempts=len(tries),
        confirmed_in_fresh_processes=confirmed,
        log_ratios=rounds.log_ratios(0, 1),
        baseline_p50_ms=rounds.p50_ms(0),
        candidate_p50_ms=rounds.p50_ms(1),
        wall_s=wall_s,
    )


def _half_width_pct(interval: Interval) -> float:
    return 100 * math.expm1(interval.half_width)
