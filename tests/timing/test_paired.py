"""Comparisons of two arms: the rule on seeded log ratios, the course of one on a fake clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

from opslib.core.errors import UsageError
from opslib.timing import paired, rounds
from opslib.timing.paired import Comparison, Limits, OpenVisits, compare_arms, judge
from opslib.timing.rounds import (
    Arm,
    Deadline,
    Visit,
    VisitTimes,
    open_here,
    open_in_workers,
    plan_rounds,
    run_rounds,
    visit_arm,
)

pytestmark = pytest.mark.alone


def ratios(effect_pct: float, noise_pct: float, count: int = 40, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    values = rng.normal(math.log1p(effect_pct / 100), noise_pct / 100, count)
    return [float(value) for value in values]


class FakeHost:
    """Two arms whose visits take made-up times on a made-up clock; counts what was opened."""

    def __init__(
        self,
        attempts: Sequence[tuple[float, float, float]],
        fresh: tuple[float, float, float] | None = None,
        run_ms: float = 2.0,
    ) -> None:
        """Give (effect %, noise %, run delay %) of each attempt, and of fresh processes."""
        self.now_s = 0.0
        self.opened: list[str] = []
        self._attempts = iter(attempts)
        self._fresh = fresh
        self._run_ms = run_ms
        self._rng = np.random.default_rng(5)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(paired, "open_in_workers", self._open("fresh", lambda: self._fresh))
        monkeypatch.setattr(
            paired, "Deadline", lambda budget_s: Deadline(budget_s, clock=lambda: self.now_s)
        )

    @property
    def open_visits(self) -> OpenVisits:
        """The visits of the first attempts; those of fresh processes are installed."""
        return self._open("here", lambda: next(self._attempts))

    def _open(self, name: str, settings: Callable[[], Any]) -> OpenVisits:
        @contextmanager
        def opened(arms: Sequence[Arm], rng: np.random.Generator) -> Iterator[list[Visit]]:
            self.opened.append(name)
            effect_pct, noise_pct, delay_pct = settings()
            slow = 1 + effect_pct / 100
            yield [
                partial(self._visit, self._run_ms * factor, noise_pct, delay_pct)
                for factor in (slow, 1.0)
            ]

        return opened

    def _visit(self, run_ms: float, noise_pct: float, delay_pct: float, runs: int) -> VisitTimes:
        shift = math.exp(self._rng.normal(0, noise_pct / 100 / math.sqrt(2)))
        wall_s = (runs + 1) * run_ms * shift / 1000
        self.now_s += wall_s
        return VisitTimes((run_ms * shift,) * runs, wall_s, wall_s * delay_pct / 100)


@contextmanager
def never_opened() -> Iterator[Callable[[], Any]]:
    raise AssertionError("a fake host opens no arm")
    yield


def compare_on(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, budget_s: float | None = None
) -> Comparison:
    host.install(monkeypatch)
    return compare_arms(
        Arm("old", never_opened),
        Arm("new", never_opened),
        budget_s=budget_s,
        open_visits=host.open_visits,
    )


# The rule


def test_equal_arms_are_told_apart_in_at_most_one_of_a_hundred_comparisons() -> None:
    claims = [judge(ratios(0, 3, seed=n), 0.0, Limits(), seed=n).claim for n in range(300)]
    assert sum(claim in ("faster", "slower") for claim in claims) <= 3


def test_a_slowdown_of_five_percent_is_found_nearly_always() -> None:
    claims = [judge(ratios(-5, 3, seed=n), 0.0, Limits(), seed=n).claim for n in range(300)]
    assert claims.count("slower") >= 297


def test_a_significant_but_tiny_effect_is_no_measurable_change() -> None:
    finding = judge(ratios(1, 0.5), 0.0, Limits())
    assert not finding.interval.contains(0)
    assert finding.claim == "no measurable change"
    assert judge(ratios(1, 0.5), 0.0, Limits(min_effect_pct=0.5)).claim == "faster"


def test_a_wide_interval_is_trouble_that_names_its_width() -> None:
    finding = judge(ratios(0, 20, count=20), 0.0, Limits())
    assert finding.claim == "inconclusive"
    assert finding.trouble is not None
    assert "3 % is allowed" in finding.trouble


def test_a_large_effect_may_have_an_interval_of_a_tenth_of_it() -> None:
    assert judge(ratios(150, 12, count=20), 0.0, Limits()).trouble is None
    assert judge(ratios(10, 12, count=20), 0.0, Limits()).trouble is not None


def test_waiting_for_a_cpu_is_trouble_and_not_knowing_is_not() -> None:
    assert "25 %" in str(judge(ratios(0, 1), 25.0, Limits()).trouble)
    assert judge(ratios(0, 1), None, Limits()).trouble is None


def test_a_few_wild_rounds_do_not_change_the_claim() -> None:
    values = ratios(0, 1)
    values[:4] = [2.0, 1.5, -2.0, 1.8]
    assert judge(values, 0.0, Limits()).claim == "no measurable change"


@pytest.mark.parametrize("wrong", [{"min_effect_pct": 0.0}, {"max_half_width_pct": -1.0}])
def test_limits_of_zero_or_less_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Limits(**wrong)


# The course of a comparison


def test_a_clear_difference_takes_one_attempt_and_names_both_arms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = FakeHost([(60, 2, 1)])
    found = compare_on(host, monkeypatch)
    assert found.verdict == "faster"
    assert found.speedup == pytest.approx(1.6, rel=0.02)
    assert found.speedup_ci95[0] < 1.6 < found.speedup_ci95[1]
    assert host.opened == ["here"]
    assert (found.rounds, found.runs_per_round, found.attempts) == (20, 5, 1)
    assert len(found.log_ratios) == 20
    assert found.confirmed_in_fresh_processes is None
    assert f"new runs at {found.speedup:.3f} times the speed of old" in found.reason
    assert found.baseline_p50_ms == pytest.approx(1.6 * found.candidate_p50_ms, rel=0.03)


def test_a_slower_candidate_is_called_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare_on(FakeHost([(-10, 1, 1)]), monkeypatch)
    assert found.verdict == "slower"
    assert found.speedup == pytest.approx(0.9, rel=0.02)


def test_runs_below_a_millisecond_get_forty_rounds_of_ten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = compare_on(FakeHost([(0, 1, 1)], run_ms=0.3), monkeypatch)
    assert (found.rounds, found.runs_per_round) == (40, 10)


def test_an_unreliable_attempt_is_retried_and_the_second_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = FakeHost([(0, 30, 1), (0, 1, 1)])
    found = compare_on(host, monkeypatch)
    assert found.verdict == "no measurable change"
    assert found.attempts == 2
    assert host.opened == ["here", "here"]


def test_two_unreliable_attempts_are_inconclusive_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = compare_on(FakeHost([(0, 1, 40), (0, 1, 33)]), monkeypatch)
    assert found.verdict == "inconclusive"
    assert found.attempts == 2
    assert "waited for a CPU during 33 %" in found.reason


def test_a_small_difference_is_confirmed_in_fresh_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = FakeHost([(3, 3, 1)], fresh=(3, 3, 1))
    found = compare_on(host, monkeypatch)
    assert host.opened == ["here", "fresh"]
    assert found.verdict == "faster"
    assert found.confirmed_in_fresh_processes is True
    assert "confirmed" in found.reason


@pytest.mark.parametrize("fresh", [(0, 1, 1), (-3, 1, 1), (3, 1, 50), (3, 30, 1)])
def test_a_small_difference_that_fresh_processes_do_not_show_is_inconclusive(
    monkeypatch: pytest.MonkeyPatch, fresh: tuple[float, float, float]
) -> None:
    found = compare_on(FakeHost([(3, 3, 1)], fresh=fresh), monkeypatch)
    assert found.verdict == "inconclusive"
    assert found.confirmed_in_fresh_processes is False


def test_a_retry_that_contradicts_the_first_attempt_is_confirmed_in_fresh_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = FakeHost([(80, 1, 60), (0, 1, 1)], fresh=(0, 1, 1))
    found = compare_on(host, monkeypatch)
    assert host.opened == ["here", "here", "fresh"]
    assert found.verdict == "no measurable change"
    assert found.confirmed_in_fresh_processes is True


def test_a_short_budget_gives_up_runs_and_stays_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost([(50, 1, 1)], run_ms=20)
    found = compare_on(host, monkeypatch, budget_s=8.0)
    assert host.now_s <= 8.0
    assert found.runs_per_round < 5
    assert found.verdict == "faster"


def test_a_budget_too_short_for_ten_rounds_is_inconclusive_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = compare_on(FakeHost([(50, 1, 1)], run_ms=100), monkeypatch, budget_s=4.0)
    assert found.verdict == "inconclusive"
    assert found.rounds < 10
    assert "the time budget ended after" in found.reason
    assert found.attempts == 1


def test_a_contested_verdict_without_time_to_confirm_is_inconclusive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = FakeHost([(3, 3, 1)], fresh=(3, 3, 1))
    full = compare_on(host, monkeypatch).wall_s / 2  # one attempt of the two
    host = FakeHost([(3, 3, 1)], fresh=(3, 3, 1))
    found = compare_on(host, monkeypatch, budget_s=full * 1.3)
    assert host.opened == ["here"]
    assert found.verdict == "inconclusive"
    assert "no room to confirm" in found.reason


def test_a_comparison_survives_the_way_to_json_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare_on(FakeHost([(60, 2, 1)]), monkeypatch)
    assert Comparison.model_validate_json(found.to_json()) == found


# Rounds


def test_every_arm_is_visited_once_a_round_in_an_order_that_varies() -> None:
    order: list[int] = []

    def visit(arm: int, runs: int) -> VisitTimes:
        order.append(arm)
        return VisitTimes((1.0 + arm,) * runs, 0.001, None)

    seen = run_rounds(
        [partial(visit, arm) for arm in range(3)],
        rounds.RoundPlan(30, 2),
        np.random.default_rng(0),
        Deadline(None),
    )
    by_round = [tuple(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert all(sorted(one) == [0, 1, 2] for one in by_round)
    assert len(set(by_round)) == 6
    assert seen.medians_ms == ((1.0, 2.0, 3.0),) * 30
    assert seen.log_ratios(1, 0)[0] == pytest.approx(math.log(2))
    assert seen.run_delay_pct is None


def test_the_first_run_after_a_switch_is_discarded() -> None:
    calls: list[int] = []

    def run() -> None:
        calls.append(1)
        if len(calls) == 1:
            deadline_ns = time.perf_counter_ns() + 20_000_000
            while time.perf_counter_ns() < deadline_ns:
                pass

    seen = visit_arm(run, 5)
    assert len(calls) == 6
    assert len(seen.times_ms) == 5
    assert float(np.median(seen.times_ms)) < 20
    assert sum(seen.times_ms) / 1000 < seen.wall_s - 0.019


@pytest.mark.parametrize(
    ("run_ms", "available_s", "expected"),
    [
        ((0.9, 0.2), math.inf, (40, 10)),
        ((0.9, 1.0), math.inf, (20, 5)),
        ((10.0, 10.0), 2.0, (20, 4)),
        ((100.0, 100.0), 10.0, (12, 3)),
        ((100.0, 100.0), 0.1, (10, 3)),
    ],
)
def test_a_plan_gives_up_runs_first_and_then_rounds(
    run_ms: tuple[float, float], available_s: float, expected: tuple[int, int]
) -> None:
    plan = plan_rounds(run_ms, available_s)
    assert (plan.rounds, plan.runs_per_round) == expected


# Real arms


@contextmanager
def open_busy_wait(us: float) -> Iterator[Callable[[], None]]:
    def spin() -> None:
        until = time.perf_counter_ns() + int(us * 1000)
        while time.perf_counter_ns() < until:
            pass

    yield spin


@pytest.mark.parametrize("open_visits", [open_here, open_in_workers])
def test_a_busy_wait_of_half_the_length_is_twice_as_fast(open_visits: OpenVisits) -> None:
    slow = Arm("slow", partial(open_busy_wait, 400))
    fast = Arm("fast", partial(open_busy_wait, 200))
    found = compare_arms(slow, fast, open_visits=open_visits)
    assert found.speedup == pytest.approx(2, rel=0.1)
    assert found.verdict in ("faster", "inconclusive")


def test_arms_are_closed_after_each_attempt() -> None:
    events: list[str] = []

    def arm(label: str) -> Arm:
        @contextmanager
        def opened() -> Iterator[Callable[[], Any]]:
            events.append(f"open {label}")
            yield partial(sum, range(3000))
            events.append(f"close {label}")

        open_arm: Callable[[], AbstractContextManager[Callable[[], Any]]] = opened
        return Arm(label, open_arm)

    found = compare_arms(arm("a"), arm("b"), max_half_width_pct=50, min_effect_pct=50)
    assert found.verdict == "no measurable change"
    # A disturbed attempt is made again, so that there may be more than one.
    attempts = [events[start : start + 4] for start in range(0, len(events), 4)]
    for attempt in attempts:
        assert sorted(attempt[:2]) == ["open a", "open b"]
        assert sorted(attempt[2:]) == ["close a", "close b"]
