"""Two calls timed in turn: how much longer one takes, settled pair by pair."""

from __future__ import annotations

import math
import random
import time

import pytest

from opslib.core.errors import UsageError
from opslib.timing.related import (
    Round,
    choose_rounds,
    is_settled,
    log_ratio_interval,
    time_in_turn,
)
from opslib.timing.stats import trimmed_interval


def rounds(ratio: float, spread: float, count: int, seed: int = 0) -> list[Round]:
    rng = random.Random(seed)
    return [Round(ratio * math.exp(rng.gauss(0, spread)), 1.0) for _ in range(count)]


def test_the_interval_of_a_trimmed_mean_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(0)
    for count in (5, 10, 30):
        covered = 0
        for _ in range(1000):
            values = [rng.gauss(0, 1) * (5 if rng.random() < 0.1 else 1) for _ in range(count)]
            covered += trimmed_interval(values).contains(0)
        assert 925 <= covered <= 990


def test_the_interval_of_a_trimmed_mean_needs_five_values() -> None:
    with pytest.raises(UsageError, match="5 values, got 4"):
        trimmed_interval([1.0] * 4)


def test_the_ratio_turned_round_is_the_ratio_of_the_calls_turned_round() -> None:
    found = rounds(1.7, 0.05, 30)
    turned = log_ratio_interval([Round(one.reference_ms, one.ms) for one in found])
    plain = log_ratio_interval(found)
    assert plain
    assert turned
    assert (turned.low, turned.high) == pytest.approx((-plain.high, -plain.low))


def test_a_host_twice_as_fast_has_the_same_ratio() -> None:
    found = rounds(1.7, 0.05, 30)
    halved = [Round(one.ms / 2, one.reference_ms / 2) for one in found]
    assert log_ratio_interval(halved) == log_ratio_interval(found)


def test_rounds_in_which_a_thread_waited_are_left_out_where_enough_others_are() -> None:
    calm = rounds(2.0, 0.01, 10)
    disturbed = [Round(9.0, 1.0, calm=False)] * 30
    assert choose_rounds([*disturbed, *calm]) == calm
    assert len(choose_rounds([*disturbed, *calm[:9]])) == 39


def test_a_ratio_is_settled_when_it_is_narrow_from_rounds_enough() -> None:
    assert is_settled(rounds(2.0, 0.01, 12), 5, fewest=12)
    assert not is_settled(rounds(2.0, 0.01, 11), 5, fewest=12)
    assert not is_settled(rounds(2.0, 0.4, 12), 5, fewest=12)
    assert log_ratio_interval(rounds(2.0, 0.01, 4)) is None


def test_pairs_are_timed_until_they_are_settled() -> None:
    def busy(ms: float) -> None:
        until = time.perf_counter() + ms / 1000
        while time.perf_counter() < until:
            pass

    pairs = [(lambda: busy(2), lambda: busy(1)), (lambda: busy(0.5), lambda: busy(1))]
    found = time_in_turn(
        pairs, [[], rounds(0.5, 0.01, 20)], seconds=30, targets_pct=[20], fewest=10
    )
    first = log_ratio_interval(found[0])
    assert first
    assert first.low < math.log(2) < first.high + 0.2
    assert len(found[0]) >= 10
    assert found[1] == []  # settled by what was known


def test_time_that_is_over_still_leaves_a_few_rounds_of_each() -> None:
    calls = [(lambda: None, lambda: None)] * 3
    found = time_in_turn(calls, [[]] * 3, seconds=0, targets_pct=[1e-9], fewest=99)
    assert [len(one) for one in found] == [5, 5, 5]
