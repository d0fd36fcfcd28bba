"""Statistics of timings against published values and by their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from opslib.core.errors import UsageError
from opslib.timing.stats import (
    Interval,
    block_interval,
    bootstrap_interval,
    min_samples,
    percentile,
    trimmed_mean,
)

finite = st.floats(-1e6, 1e6, allow_nan=False)
latencies = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=8)


def test_percentiles_need_as_many_samples_as_the_load_generator_of_mlperf_publishes() -> None:
    assert min_samples(0.90) == 64
    assert min_samples(0.99) == 662


@given(st.floats(0.5, 0.995), st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=50, deadline=None)
def test_the_sample_size_is_the_smallest_that_meets_the_binomial_rule(q: float, c: float) -> None:
    count = min_samples(q, c)
    assert scipy_stats.binom.cdf(1, count, 1 - q) <= (1 - c) * (1 + 1e-9)
    assert scipy_stats.binom.cdf(1, count - 1, 1 - q) > (1 - c) * (1 - 1e-9)


def test_a_low_percentile_needs_as_many_samples_as_its_mirror_image() -> None:
    assert min_samples(0.25) == min_samples(0.75)


def test_a_percentile_is_withheld_one_sample_below_its_support() -> None:
    assert percentile(range(661), 0.99) is None
    assert percentile(range(662), 0.99) == pytest.approx(661 * 0.99)
    assert percentile(range(63), 0.90) is None
    assert percentile(range(11), 0.50) == 5.0


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.1, 2.0])
def test_a_quantile_outside_zero_to_one_is_refused_with_its_value(quantile: float) -> None:
    with pytest.raises(UsageError, match=str(quantile)):
        percentile([1.0], quantile)


@given(st.lists(finite, min_size=1, max_size=50), st.floats(0, 0.49))
def test_the_trimmed_mean_is_that_of_scipy(values: list[float], proportion: float) -> None:
    expected = float(scipy_stats.trim_mean(values, proportion))
    assert trimmed_mean(values, proportion) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_the_trimmed_mean_ignores_a_fifth_of_wild_values_at_each_end() -> None:
    assert trimmed_mean([1.0, 1.0, 1.0, 1.0, 1e9]) == 1.0
    assert trimmed_mean([-1e9, 2.0, 2.0, 2.0, 1e9]) == 2.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_empty_or_non_finite_values_are_refused(values: list[float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        trimmed_mean(values)


@given(st.lists(finite, min_size=2, max_size=40), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_a_bootstrap_interval_stays_within_the_values_and_repeats(
    values: list[float], seed: int
) -> None:
    interval = bootstrap_interval(values, seed=seed)
    slack = 1e-9 * max(1.0, *(abs(value) for value in values))
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
    assert bootstrap_interval(values, seed=seed) == interval


def test_a_bootstrap_interval_of_the_mean_agrees_with_normal_theory() -> None:
    values = np.random.default_rng(1).normal(10, 2, 400)
    interval = bootstrap_interval(values, statistic=lambda rows: rows.mean(axis=-1))
    expected = 1.96 * values.std(ddof=1) / math.sqrt(values.size)
    assert interval.half_width == pytest.approx(expected, rel=0.08)


def test_a_bootstrap_interval_over_twenty_rounds_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = sum(
        bootstrap_interval(rng.normal(0.03, 0.02, 20), resamples=500, seed=n).contains(0.03)
        for n in range(400)
    )
    assert 0.89 <= covered / 400 <= 0.98


def test_a_bootstrap_interval_is_by_default_that_of_the_trimmed_mean() -> None:
    assert bootstrap_interval([1.0] * 19 + [1e6], resamples=200) == Interval(1.0, 1.0)


def test_a_block_interval_is_that_of_a_t_table() -> None:
    # t(0.975, 2) = 4.303; logs -0.01, 0, 0.01 have standard deviation 0.01.
    interval = block_interval([math.exp(-0.01), 1.0, math.exp(0.01)])
    assert math.log(interval.high) == pytest.approx(4.303 * 0.01 / math.sqrt(3), rel=1e-3)
    assert interval.low * interval.high == pytest.approx(1.0)


def test_three_drifting_blocks_are_covered_where_a_bootstrap_of_them_fails() -> None:
    rng = np.random.default_rng(3)
    blocks = np.exp(rng.normal(math.log(5.0), 0.02, (300, 3)))
    student = sum(block_interval(row).contains(5.0) for row in blocks)
    boot = sum(bootstrap_interval(row, resamples=300).contains(5.0) for row in blocks)
    assert student / 300 == pytest.approx(0.95, abs=0.03)
    assert boot / 300 < 0.85


@given(latencies)
@settings(deadline=None)
def test_a_block_interval_holds_the_geometric_mean_and_scales_with_the_unit(
    medians_ms: list[float],
) -> None:
    interval = block_interval(medians_ms)
    centre = math.exp(sum(map(math.log, medians_ms)) / len(medians_ms))
    assert interval.low <= centre * (1 + 1e-9)
    assert interval.high >= centre * (1 - 1e-9)
    scaled = block_interval([1000 * value for value in medians_ms])
    assert scaled.high == pytest.approx(1000 * interval.high)


@pytest.mark.parametrize(("medians_ms", "named"), [([1.0], "2 blocks"), ([1.0, 0.0], "0.0 ms")])
def test_an_impossible_block_interval_is_refused(medians_ms: list[float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        block_interval(medians_ms)


def test_an_interval_knows_its_half_width() -> None:
    assert Interval(1.0, 4.0).half_width == 1.5
