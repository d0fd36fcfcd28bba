"""Which host differs from its like: how often chance is taken for a difference, and what is not."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from opslib.timing.like import Figures, Unlike, adjust, find_unlike, moderate

ALPHA = 0.01


def judge(hosts: list[Figures]) -> list[tuple[Unlike, float]]:
    """Each host beside the others, with its p-value among all of them."""
    spreads = moderate(hosts)
    found = [find_unlike(spreads, at, ALPHA / len(hosts)) for at in range(len(hosts))]
    return list(zip(found, adjust(found), strict=True))


def make_hosts(
    chance: np.random.Generator, count: int, runs: int, *, differ: float = 0.0, noise: float = 0.02
) -> list[Figures]:
    """Hosts of one level whose runs differ by `noise`, by more or less where noises `differ`."""
    noises = noise * np.exp(differ * chance.standard_normal(count))
    return [Figures(tuple(chance.normal(0, one, runs))) for one in noises]


def shifted(host: Figures, by: float) -> Figures:
    return Figures(tuple(value + by for value in host.values))


@pytest.mark.parametrize("differ", [0.0, 0.5])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_where_no_host_differs_hardly_any_is_called_different(count: int, differ: float) -> None:
    chance = np.random.default_rng(count)
    desks = 150
    raised = sum(
        any(p_value <= ALPHA for _, p_value in judge(make_hosts(chance, count, 4, differ=differ)))
        for _ in range(desks)
    )
    assert raised <= 6  # 1.5 are expected at most; more than 6 happen once in 1,000 such tests


def test_a_host_that_is_ten_percent_slower_is_found_in_five_runs() -> None:
    chance = np.random.default_rng(1)
    found = 0
    for _ in range(40):
        first, *others = make_hosts(chance, 4, 5)
        unlike, p_value = judge([shifted(first, 0.1), *others])[0]
        found += p_value <= ALPHA and unlike.low > 0
    assert found >= 38


def test_one_strange_host_makes_no_other_host_strange() -> None:
    chance = np.random.default_rng(2)
    first, *others = make_hosts(chance, 3, 6)
    (strange, small), *rest = judge([shifted(first, -0.5), *others])
    assert small <= ALPHA
    assert strange.high < 0
    assert all(p_value > 0.05 for _, p_value in rest)


def test_of_two_hosts_the_slower_one_is_higher_and_the_other_lower_by_as_much() -> None:
    first, second = make_hosts(np.random.default_rng(3), 2, 6)
    (slow, one), (fast, other) = judge([shifted(first, 0.3), second])
    assert one == other
    assert slow.difference == pytest.approx(-fast.difference)
    assert (slow.low, slow.high) == pytest.approx((-fast.high, -fast.low))
    assert slow.p_higher < slow.p_lower == 1.0


def test_the_interval_and_the_p_value_say_the_same() -> None:
    chance = np.random.default_rng(4)
    for shift in np.linspace(0, 0.2, 30):
        first, *others = make_hosts(chance, 5, 4)
        spreads = moderate([shifted(first, float(shift)), *others])
        unlike = find_unlike(spreads, 0, ALPHA)
        assert (unlike.low > 0) == (unlike.p_higher < ALPHA)


def test_runs_that_agree_by_chance_are_not_believed_beyond_their_own_intervals() -> None:
    level = [Figures((one, one, one), own_variance=0.05**2) for one in (0.0, 0.03)]
    assert all(p_value > 0.5 for _, p_value in judge(level))


def test_other_hosts_make_no_host_known_better_than_by_its_own_intervals() -> None:
    calm = [Figures((-0.01, 0.0, 0.01)) for _ in range(5)]
    own, *_ = moderate([Figures((-0.01, 0.0, 0.01), own_variance=0.05**2), *calm])
    assert own.error >= 0.05**2 / 3


def test_more_runs_make_narrower_intervals() -> None:
    widths = []
    for runs in (3, 6, 12, 24):
        values = tuple(0.02 * (-1) ** at for at in range(runs))
        spreads = moderate([Figures(values), Figures(values), Figures(values)])
        unlike = find_unlike(spreads, 0, ALPHA)
        widths.append(unlike.high - unlike.low)
    assert all(more < fewer for fewer, more in pairwise(widths))
    assert not math.isnan(widths[-1])
