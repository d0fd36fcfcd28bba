"""The difference of two accuracies on the same images: estimate, score interval, exact test.

Of n images, `lost` are right before and wrong after, `gained` the other way round. The drop is
(lost - gained) / n. Its interval is Tango's (1998, Statistics in Medicine 17:891-908): all drops d
that a score test with the constrained maximum-likelihood variance does not reject.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opslib.core.errors import UsageError
from opslib.timing.stats import Interval

CONFIDENCE = 0.90
POWER = 0.80
_BISECTIONS = 60


@dataclass(frozen=True)
class PairedCounts:
    """Of `n` images, how many answers turned wrong (`lost`) and how many right (`gained`)."""

    n: int
    lost: int
    gained: int

    def __post_init__(self) -> None:
        if self.n < 1 or self.lost < 0 or self.gained < 0 or self.lost + self.gained > self.n:
            raise UsageError(
                f"expected 0 <= lost + gained <= n and n >= 1, got lost={self.lost}, "
                f"gained={self.gained}, n={self.n}"
            )

    @property
    def drop(self) -> float:
        """Accuracy before less accuracy after, as a fraction; negative is a gain."""
        return (self.lost - self.gained) / self.n

    @property
    def discordance(self) -> float:
        """Share of the images whose answer turned right or wrong."""
        return (self.lost + self.gained) / self.n


def score_statistic(
    lost: ArrayLike, gained: ArrayLike, n: int, drop: ArrayLike
) -> NDArray[np.float64]:
    """Tango's score statistic of the hypothesis that the true drop is `drop`; arrays broadcast.
    Standard normal under the hypothesis for large n; large values say that the drop is larger."""
    b, c, d = (np.asarray(one, dtype=np.float64) for one in (lost, gained, drop))
    linear = -b - c + (2 * n - b + c) * d
    constant = -c * d * (1 - d)
    q21 = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * np.maximum(2 * q21 + d * (1 - d), 0)
    distance = b - c - n * d
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = distance / np.sqrt(variance)
    return np.where(distance == 0, 0.0, statistic)


def tango_interval(counts: PairedCounts, confidence: float = CONFIDENCE) -> Interval:
    """Return Tango's two-sided score interval of the drop, as fractions."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return Interval(
        -_find_upper(counts.gained, counts.lost, counts.n, z),
        _find_upper(counts.lost, counts.gained, counts.n, z),
    )


def drop_interval(counts: PairedCounts, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the drop that verdicts rest on: Tango's, made exact at the edge. Where
    answers changed in one direction only, or not at all, the score interval is too short (true size
    up to 6.1 % for a nominal 5 % at n = 900). The changes are then a binomial sample, and Clopper
    and Pearson's (1934) exact ends replace those of Tango's that lie inside them."""
    score = tango_interval(counts, confidence)
    low, high = score.low, score.high
    if counts.gained == 0:
        exact = binomial_interval(counts.lost, counts.n, confidence)
        high = max(high, exact.high)
        low = min(low, exact.low) if counts.lost else low
    if counts.lost == 0:
        exact = binomial_interval(counts.gained, counts.n, confidence)
        low = min(low, -exact.high)
        high = max(high, -exact.low) if counts.gained else high
    return Interval(low, high)


def binomial_interval(hits: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Return Clopper and Pearson's exact interval of a share of `hits` in `n`."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return Interval(low, high)


def mcnemar_p(counts: PairedCounts) -> float:
    """Return the exact two-sided McNemar p-value: are losses and gains equally likely?"""
    from scipy.stats import binomtest

    changed = counts.lost + counts.gained
    if changed == 0:
        return 1.0
    answer: Any = binomtest(counts.lost, changed, 0.5)
    return float(answer.pvalue)


def images_to_settle(counts: PairedCounts, max_drop: float) -> int | None:
    """Return how many images would settle whether the drop is within `max_drop` (a fraction). For a
    power of 80 % if discordance and drop stay as seen: n = (z95 + z80)^2 rho / m^2, with
    discordance rho and distance m between drop and limit, but never fewer than what it takes if no
    answer changes at all. None where the drop lies on the limit, which no number can settle."""
    margin = abs(max_drop - counts.drop)
    if max_drop <= 0 or margin * counts.n < 1e-9:
        return None
    normal = NormalDist()
    reach = normal.inv_cdf((1 + CONFIDENCE) / 2) + normal.inv_cdf(POWER)
    by_power = reach**2 * counts.discordance / margin**2
    return max(math.ceil(by_power), fewest_images(max_drop))


def fewest_images(max_drop: float, confidence: float = CONFIDENCE) -> int:
    """Return the fewest images that can prove a drop within `max_drop`: none may change."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log1p(-max_drop))


def _find_upper(lost: int, gained: int, n: int, z: float) -> float:
    """The largest drop that the score test does not reject; the statistic falls with the drop."""
    if lost == n:
        return 1.0
    inside, outside = (lost - gained) / n, 1.0
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if float(score_statistic(lost, gained, n, middle)) >= -z:
            inside = middle
        else:
            outside = middle
    return inside
