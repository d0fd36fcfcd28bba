"""The paired difference against published values, by enumeration and by its properties."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from opslib.core.errors import UsageError
from opslib.timing.tango import (
    PairedCounts,
    binomial_interval,
    drop_interval,
    fewest_images,
    images_to_settle,
    mcnemar_p,
    score_statistic,
    tango_interval,
)
from tests.turns import looped, turns

LIMIT = 0.005
Z95 = 1.6448536269514722

# (lost, gained, n, confidence, low, high, digits)
PUBLISHED = [
    # Bentur et al. (2009) as analysed by Fagerland, Lydersen and Laake (2014)
    (1, 7, 21, 0.95, -0.517, -0.026, 3),
    # outputs of scoreci.mp of the R package PropCIs, which implements Tango (1998)
    (28, 25, 618, 0.90, -0.0148, 0.0247, 4),
    (60, 20, 1000, 0.95, 0.0231, 0.0584, 4),
    (20, 60, 1000, 0.95, -0.0584, -0.0231, 4),
]


@pytest.mark.parametrize("case", PUBLISHED)
def test_the_interval_has_the_published_values(case: tuple[float, ...]) -> None:
    lost, gained, n, confidence, low, high, digits = case
    counts = PairedCounts(int(n), int(lost), int(gained))
    interval = tango_interval(counts, confidence)
    assert round(interval.low, int(digits)) == low
    assert round(interval.high, int(digits)) == high


def test_without_any_change_the_interval_has_its_closed_form() -> None:
    z2 = Z95**2
    for n in (128, 538, 539, 2600):
        interval = tango_interval(PairedCounts(n, 0, 0))
        assert interval.high == pytest.approx(z2 / (n + z2), abs=1e-12)
        assert interval.low == pytest.approx(-z2 / (n + z2), abs=1e-12)
    assert round(100 * tango_interval(PairedCounts(128, 0, 0)).high, 2) == 2.07
    assert tango_interval(PairedCounts(538, 0, 0)).high > LIMIT
    assert tango_interval(PairedCounts(539, 0, 0)).high <= LIMIT


@pytest.mark.parametrize(("lost", "gained", "n"), [(3, 1, 60), (0, 4, 50), (12, 2, 50), (9, 9, 99)])
def test_the_statistic_uses_the_constrained_maximum_likelihood(
    lost: int, gained: int, n: int
) -> None:
    """The nuisance parameter is found here by a grid over the trinomial likelihood."""
    for drop in (-0.2, -0.01, 0.005, 0.3):
        q21 = np.linspace(max(0.0, -drop), (1 - drop) / 2, 400_001)[1:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = (
                lost * np.log(q21 + drop)
                + gained * np.log(q21)
                + (n - lost - gained) * np.log(1 - 2 * q21 - drop)
            )
        best = q21[np.nanargmax(likelihood)]
        expected = (lost - gained - n * drop) / math.sqrt(n * (2 * best + drop - drop**2))
        assert float(score_statistic(lost, gained, n, drop)) == pytest.approx(expected, rel=2e-3)


def size_of_proven(n: int, discordances: np.ndarray) -> np.ndarray:
    """Exact probability of `proven` when the true drop equals the limit, for each discordance."""
    top = 210
    lost, gained = np.meshgrid(np.arange(top), np.arange(top), indexing="ij")
    possible = lost + gained <= min(n, top - 1)
    proven = (score_statistic(lost, gained, n, LIMIT) <= -Z95) & possible
    for count in np.flatnonzero(proven[:, 0]):
        proven[count, 0] = drop_interval(PairedCounts(n, int(count), 0)).high <= LIMIT
    changed = binom.pmf(np.arange(top), n, discordances[:, None])
    return np.array(
        [
            np.where(
                proven,
                binom.pmf(lost, lost + gained, (rho + LIMIT) / 2 / rho)
                * row[np.minimum(lost + gained, top - 1)],
                0,
            ).sum()
            for rho, row in zip(discordances, changed, strict=True)
        ]
    )


def test_proven_is_wrong_in_at_most_five_and_a_half_percent() -> None:
    discordances = np.concatenate([np.linspace(0.005, 0.01, 6), np.linspace(0.015, 0.05, 8)])
    counts = (*range(600, 2401, 150), 650, 825, 1225)
    sizes = {n: size_of_proven(n, discordances).max() for n in counts}
    worst = max(sizes, key=lambda n: sizes[n])
    assert sizes[worst] <= 0.055, (worst, sizes[worst])


def test_the_enumeration_uses_the_same_rule_as_the_interval() -> None:
    for lost, gained in itertools.product(range(12), range(6)):
        counts = PairedCounts(900, lost, gained)
        by_statistic = float(score_statistic(lost, gained, 900, LIMIT)) <= -Z95
        if gained:
            assert (drop_interval(counts).high <= LIMIT) == by_statistic
        else:
            assert drop_interval(counts).high >= tango_interval(counts).high


def test_a_collapse_of_thirty_points_is_disproven_with_128_images_always() -> None:
    lost, gained = np.meshgrid(np.arange(129), np.arange(129), indexing="ij")
    collapsed = (lost + gained <= 128) & ((lost - gained) / 128 >= 0.30)
    assert (score_statistic(lost, gained, 128, LIMIT)[collapsed] > Z95).all()
    assert drop_interval(PairedCounts(128, 39, 0)).low > 0.2
    assert drop_interval(PairedCounts(128, 83, 44)).low > LIMIT


def test_one_direction_only_gets_exact_ends() -> None:
    counts = PairedCounts(900, 1, 0)
    assert drop_interval(counts).high == binomial_interval(1, 900).high
    assert drop_interval(counts).high > tango_interval(counts).high
    mixed = PairedCounts(900, 4, 1)
    assert drop_interval(mixed) == tango_interval(mixed)


def test_binomial_ends_solve_their_own_tails() -> None:
    interval = binomial_interval(3, 200)
    assert binom.cdf(3, 200, interval.high) == pytest.approx(0.05)
    assert binom.sf(2, 200, interval.low) == pytest.approx(0.05)
    assert binomial_interval(0, 50).low == 0
    assert binomial_interval(50, 50).high == 1


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar_p(PairedCounts(100, 0, 0)) == 1
    assert mcnemar_p(PairedCounts(100, 5, 0)) == pytest.approx(2 / 32)
    assert mcnemar_p(PairedCounts(100, 2, 8)) == pytest.approx(0.109375)  # 2 * 56 / 1024


def test_the_images_to_settle_give_the_promised_power() -> None:
    seen = PairedCounts(1000, 5, 5)
    n = images_to_settle(seen, LIMIT)
    assert n is not None
    assert 2400 < n < 2500
    rng = np.random.default_rng(0)
    draws = rng.multinomial(n, [0.005, 0.005, 0.99], size=4000)
    power = (score_statistic(draws[:, 0], draws[:, 1], n, LIMIT) <= -Z95).mean()
    assert 0.75 < power < 0.85


def test_no_number_of_images_settles_a_drop_on_the_limit() -> None:
    assert images_to_settle(PairedCounts(1000, 5, 0), LIMIT) is None
    assert images_to_settle(PairedCounts(128, 0, 0), LIMIT) == fewest_images(LIMIT) == 598
    assert drop_interval(PairedCounts(598, 0, 0)).high <= LIMIT
    assert drop_interval(PairedCounts(597, 0, 0)).high > LIMIT


def test_impossible_counts_are_refused() -> None:
    for n, lost, gained in ((0, 0, 0), (10, -1, 0), (10, 6, 5)):
        with pytest.raises(UsageError, match="lost"):
            PairedCounts(n, lost, gained)


@st.composite
def paired_counts(draw: st.DrawFn) -> PairedCounts:
    n = draw(st.integers(1, 3000))
    lost = draw(st.integers(0, n))
    return PairedCounts(n, lost, draw(st.integers(0, n - lost)))


@looped
@settings(max_examples=turns(40, 200), deadline=None)
@given(counts=paired_counts(), confidence=st.sampled_from([0.8, 0.9, 0.99]))
def test_intervals_are_in_range_hold_the_estimate_and_mirror(
    counts: PairedCounts, confidence: float
) -> None:
    mirrored = PairedCounts(counts.n, counts.gained, counts.lost)
    for make in (tango_interval, drop_interval):
        interval = make(counts, confidence)
        assert -1 <= interval.low <= counts.drop <= interval.high <= 1
        other = make(mirrored, confidence)
        assert other.low == pytest.approx(-interval.high, abs=1e-9)
        assert other.high == pytest.approx(-interval.low, abs=1e-9)
        wider = make(counts, 0.995)
        assert wider.low <= interval.low + 1e-9
        assert wider.high >= interval.high - 1e-9


@looped
@settings(max_examples=turns(40, 200), deadline=None)
@given(counts=paired_counts())
def test_one_more_loss_raises_both_ends_of_tangos_interval(counts: PairedCounts) -> None:
    if counts.lost + counts.gained == counts.n:
        return
    more = PairedCounts(counts.n, counts.lost + 1, counts.gained)
    before, after = tango_interval(counts), tango_interval(more)
    assert after.low >= before.low - 1e-9
    assert after.high >= before.high - 1e-9


@looped
@settings(max_examples=turns(20, 100), deadline=None)
@given(counts=paired_counts())
def test_more_images_at_the_same_rates_narrow_the_interval(counts: PairedCounts) -> None:
    four = PairedCounts(4 * counts.n, 4 * counts.lost, 4 * counts.gained)
    assert drop_interval(four).half_width <= drop_interval(counts).half_width + 1e-9
