"""Whether one host differs from hosts that should be like it, by figures of several runs of each.

Runs of one host differ too: placement, neighbours and frequency change from run to run. So a run is
one observation, and what a host's runs differ by is the yardstick (Kalibera and Jones, "Rigorous
benchmarking in reasonable time", 2013). Three runs tell that spread badly, all hosts together tell
it well: each host's variance is moderated by the others' (Smyth, "Linear models and empirical Bayes
methods", 2004). A host differs where it differs from more than half of the others, each beyond the
noise of both (partial conjunction; Benjamini and Heller, 2008): one strange host among them makes
no other host strange.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from opslib.timing.between import holm

FEWEST_HOSTS_MODERATED = 3


@dataclass(frozen=True)
class Figures:
    """The figures of one host's runs, such as logarithms of latency, at least two. `own_variance`
    is the mean squared standard error of a figure within its run: the spread is never less."""

    values: tuple[float, ...]
    own_variance: float = 0.0

    @property
    def mean(self) -> float:
        """The host's level."""
        return statistics.fmean(self.values)

    @property
    def variance(self) -> float:
        """The variance between runs, above 0."""
        return max(statistics.variance(self.values), self.own_variance, 1e-12)

    @property
    def degrees(self) -> float:
        """Its degrees of freedom."""
        return len(self.values) - 1


@dataclass(frozen=True)
class Spread:
    """How far the mean of a host's runs may lie from its level: its squared standard error, and the
    degrees of freedom of that."""

    mean: float
    error: float
    degrees: float


@dataclass(frozen=True)
class Unlike:
    """How a host differs from more than half of the others: `difference` is the median of the
    differences to them, `low` and `high` the interval of which `low` above 0 says that it lies
    higher; the p-values of both directions, two-sided."""

    difference: float
    low: float
    high: float
    p_higher: float
    p_lower: float

    @property
    def p_value(self) -> float:
        """The smaller one: at most one of them can be small."""
        return min(self.p_higher, self.p_lower)


def moderate(hosts: Sequence[Figures]) -> list[Spread]:
    """Return how well each host's level is known, in the order of the hosts.

    From `FEWEST_HOSTS_MODERATED` hosts on, what all runs differ by has its say in each host's.
    """
    prior, weight = 0.0, 0.0
    if len(hosts) >= FEWEST_HOSTS_MODERATED:
        prior, weight = _find_prior(hosts)
    spreads = []
    for one in hosts:
        if math.isinf(weight):
            variance, degrees = prior, sum(each.degrees for each in hosts)
        else:
            degrees = one.degrees + weight
            variance = (one.degrees * one.variance + weight * prior) / degrees
        # A run is never known better than by its own interval, whatever the other hosts say.
        variance = max(variance, one.own_variance)
        spreads.append(Spread(one.mean, variance / len(one.values), degrees))
    return spreads


def find_unlike(spreads: Sequence[Spread], at: int, alpha: float) -> Unlike:
    """Return how the host at a place differs from the others; at least one. `alpha`: the risk of
    the interval, 0 to 1."""
    from scipy.special import stdtr, stdtrit

    own, others = spreads[at], [*spreads[:at], *spreads[at + 1 :]]
    most = len(others) // 2 + 1
    spared = len(others) - most + 1
    differences, lows, highs, higher, lower = [], [], [], [], []
    for other in others:
        error = own.error + other.error
        parts = own.error**2 / own.degrees + other.error**2 / other.degrees
        degrees = error**2 / parts
        difference = own.mean - other.mean
        reach = float(stdtrit(degrees, 1 - alpha / spared / 2)) * math.sqrt(error)
        p_value = 2 * float(stdtr(degrees, -abs(difference) / math.sqrt(error)))
        differences.append(difference)
        lows.append(difference - reach)
        highs.append(difference + reach)
        higher.append(p_value if difference > 0 else 1.0)
        lower.append(p_value if difference < 0 else 1.0)
    return Unlike(
        difference=statistics.median(differences),
        low=sorted(lows, reverse=True)[most - 1],
        high=sorted(highs)[most - 1],
        p_higher=min(1.0, spared * sorted(higher)[most - 1]),
        p_lower=min(1.0, spared * sorted(lower)[most - 1]),
    )


def adjust(found: Sequence[Unlike]) -> list[float]:
    """Return the p-values adjusted for being asked together, in their order."""
    return holm([one.p_value for one in found]) if found else []


def _find_prior(hosts: Sequence[Figures]) -> tuple[float, float]:
    """The variance that the hosts share and its degrees of freedom; infinite where their variances
    differ by no more than chance makes them differ."""
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    logs = [
        math.log(one.variance) - float(digamma(one.degrees / 2)) + math.log(one.degrees / 2)
        for one in hosts
    ]
    chance = statistics.fmean(float(polygamma(1, one.degrees / 2)) for one in hosts)
    excess = statistics.variance(logs) - chance
    middle = statistics.fmean(logs)
    if excess <= 0:
        degrees = sum(one.degrees for one in hosts)
        pooled = sum(one.degrees * one.variance for one in hosts) / degrees
        return pooled, math.inf
    half = float(brentq(lambda x: float(polygamma(1, x)) - excess, 1e-3, 1e8))
    return math.exp(middle + float(digamma(half)) - math.log(half)), 2 * half
