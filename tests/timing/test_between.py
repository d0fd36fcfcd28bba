"""The level over many runs, held to published values and to simulation with known truth."""

from __future__ import annotations

import numpy as np
import pytest

from opslib.timing.between import find_level, holm, paule_mandel

# Thirteen trials of the BCG vaccine (Colditz et al. 1994): cases and others, treated and not.
BCG = np.array(
    [
        (4, 119, 11, 128),
        (6, 300, 29, 274),
        (3, 228, 11, 209),
        (62, 13536, 248, 12619),
        (33, 5036, 47, 5761),
        (180, 1361, 372, 1079),
        (8, 2537, 10, 619),
        (505, 87886, 499, 87892),
        (29, 7470, 45, 7232),
        (17, 1699, 65, 1600),
        (186, 50448, 141, 27197),
        (5, 2493, 3, 2338),
        (27, 16886, 29, 17825),
    ],
    dtype=float,
)


def _bcg() -> tuple[np.ndarray, np.ndarray]:
    cases, others, control_cases, control_others = BCG.T
    treated, control = cases + others, control_cases + control_others
    effects = np.log(cases / treated) - np.log(control_cases / control)
    return effects, 1 / cases - 1 / treated + 1 / control_cases - 1 / control


def test_the_variance_between_trials_is_the_published_one() -> None:
    assert paule_mandel(*_bcg()) == pytest.approx(0.3181, abs=5e-5)


def test_the_level_of_the_trials_is_the_published_one() -> None:
    level = find_level(*_bcg())
    assert level.mean == pytest.approx(-0.7150, abs=5e-4)
    assert level.mean_variance**0.5 == pytest.approx(0.1809, abs=5e-4)


def test_runs_that_agree_have_nothing_between_them() -> None:
    assert paule_mandel(np.array([1.0, 1.001, 0.999]), np.array([0.01, 0.01, 0.01])) == 0.0


@pytest.mark.parametrize("runs", [3, 20])
@pytest.mark.parametrize("between", [0.0, 0.01, 0.05])
def test_a_run_of_the_level_is_called_strange_as_often_as_said(runs: int, between: float) -> None:
    rng = np.random.default_rng(7)
    tries, strange = 1500, 0
    for _ in range(tries):
        errors = rng.uniform(0.005, 0.02, runs + 1)
        figures = 3 + rng.normal(0, np.sqrt(between**2 + errors**2))
        level = find_level(figures[:-1], errors[:-1] ** 2)
        strange += level.p_value(figures[-1], errors[-1] ** 2) < 0.05
    assert strange / tries <= 0.075
    assert runs == 3 or strange / tries >= 0.02  # few runs may be called strange too rarely


@pytest.mark.parametrize("between", [0.0, 0.01])
def test_an_error_told_by_few_rounds_is_not_taken_for_known(between: float) -> None:
    rng = np.random.default_rng(11)
    tries, runs, degrees, strange, trusted = 1500, 25, 5, 0, 0
    for _ in range(tries):
        error = 0.02
        figures = rng.normal(0, np.hypot(between, error), runs + 1)
        said = error**2 * rng.chisquare(degrees, runs + 1) / degrees
        level = find_level(figures[:-1], said[:-1])
        strange += level.p_value(figures[-1], said[-1], degrees) < 0.005
        trusted += level.p_value(figures[-1], said[-1]) < 0.005
    assert strange / tries <= 0.01
    assert trusted > strange


def test_scale_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    figures, variances = rng.normal(5, 1, 12), rng.uniform(0.1, 1, 12)
    level, mixed = find_level(figures, variances), rng.permutation(12)
    other = find_level(100 * figures[mixed], 1e4 * variances[mixed])
    assert other.mean == pytest.approx(100 * level.mean)
    assert other.tau2 == pytest.approx(1e4 * level.tau2)
    assert other.p_value(900, 1e4) == pytest.approx(level.p_value(9, 1))
    assert level.p_value(level.mean + 2, 1) == pytest.approx(level.p_value(level.mean - 2, 1))


def test_few_runs_have_wide_limits() -> None:
    few, many = (
        find_level([1.0, 1.1, 0.9], [0.01] * 3),
        find_level([1.0, 1.1, 0.9] * 7, [0.01] * 21),
    )
    low, high = few.limits(0.01, 0.99)
    assert high - low > 2 * (many.limits(0.01, 0.99)[1] - many.limits(0.01, 0.99)[0])
    assert few.p_value(high, 0.01) == pytest.approx(0.01)


def test_rows_judged_together_are_adjusted_as_holm_says() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
