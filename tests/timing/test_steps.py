"""Steps of a series, held to series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.timing.steps import find_steps


def _noise(seed: int, count: int = 120) -> np.ndarray:
    return 100 + np.random.default_rng(seed).normal(0, 2, count)


@pytest.mark.parametrize("size", [6, -6, 12, -12])
def test_a_step_of_three_times_the_noise_is_found_where_it_is(size: float) -> None:
    found = 0
    for seed in range(20):
        series = _noise(seed)
        series[70:] += size
        steps = find_steps(series)
        found += len(steps) == 1 and abs(steps[0] - 70) <= 2
    assert found >= 19


def test_a_level_without_a_step_has_none() -> None:
    assert sum(len(find_steps(_noise(seed, 500))) for seed in range(20)) <= 1


def test_a_single_run_that_went_wrong_is_no_step() -> None:
    assert (
        sum(len(find_steps([*_noise(seed, 60), 160, *_noise(seed + 99, 60)])) for seed in range(10))
        == 0
    )


def test_noise_that_grows_is_no_step() -> None:
    rng = np.random.default_rng(1)
    series = np.concatenate([rng.normal(100, 1, 250), rng.normal(100, 6, 250)])
    assert find_steps(series) == ()


def test_noise_that_grows_within_a_few_runs_is_no_step() -> None:
    found = 0
    for seed in range(1000, 1100):
        rng = np.random.default_rng(seed)
        series = np.concatenate([rng.normal(100, 2, 25), rng.normal(100, 10, 25)])
        found += len(find_steps(series)) > 0
    assert found <= 12


def test_chance_between_two_values_is_no_step() -> None:
    found = 0
    for seed in range(20):
        found += len(find_steps(np.random.default_rng(seed).choice([100.0, 105.0], 500)))
    assert found == 0


def test_a_regression_of_ten_runs_before_noise_that_grows_is_found() -> None:
    series = np.concatenate([_noise(6, 250), 100 + 6 * (_noise(7, 250) - 100)])
    series[100:110] += 8
    assert find_steps(series) == (100, 110)


def test_a_regression_and_its_mending_are_two_steps() -> None:
    series = _noise(4)
    series[50:60] += 14
    assert find_steps(series) == (50, 60)


def test_a_step_at_the_end_is_found_within_a_few_runs() -> None:
    series = _noise(5)
    series[100:] += 12
    assert any(find_steps(series[: 100 + more]) == (100,) for more in (3, 4))


def test_steps_without_any_noise_are_found() -> None:
    assert find_steps([1.0] * 10 + [2.0] * 10) == (10,)
    assert find_steps([5.0] * 40) == ()


@pytest.mark.parametrize("count", range(6))
def test_a_few_runs_have_no_steps(count: int) -> None:
    assert find_steps([1.0, 9.0, 1.0, 9.0, 1.0][:count]) == ()


@given(st.lists(st.integers(-1000, 1000), min_size=6, max_size=60), st.integers(-9, 9))
def test_unit_and_sign_do_not_matter(series: list[int], power: int) -> None:
    steps = find_steps(series)
    assert all(3 <= at <= len(series) - 3 for at in steps)
    assert find_steps([-value for value in series]) == steps
    assert find_steps([value * 2.0**power for value in series]) == steps
