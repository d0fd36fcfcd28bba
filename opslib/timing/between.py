"""What differs between runs: a figure's level over many runs, and whether a new one belongs to it.

Within a run an interval says how well that run's figure is known; placement, neighbours and
frequency change from run to run, and no interval of one run holds them. Random effects: a run's
figure is the level, plus what this run adds (variance tau2, estimated from history), plus its own
error. See Kalibera and Jones, "Rigorous benchmarking in reasonable time" (2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEWEST_RUNS = 3  # two tell no spread that could be believed
MOST_RUNS = 100  # a level does not become truer with more


@dataclass(frozen=True)
class Level:
    """Where a figure lies: `mean`, its squared standard error, the variance between runs (`tau2`),
    all in the figure's unit or its square, and from how many runs."""

    mean: float
    mean_variance: float
    tau2: float
    runs: int

    def p_value(self, figure: float, variance: float, degrees: float = math.inf) -> float:
        """Return how often a run of this level lies as far off by chance, 0 to 1; Student's t.

        Args:
            variance: the squared standard error of the figure within its own run.
            degrees: how many degrees of freedom that has: of few rounds it is not well known.
        """
        from scipy.special import stdtr

        off = abs(figure - self.mean) / self._reach(variance)
        return float(2 * stdtr(self._degrees(variance, degrees), -off))

    def limits(
        self, variance: float, confidence: float, degrees: float = math.inf
    ) -> tuple[float, float]:
        """Return between which figures a run of this level lies with this confidence; the
        arguments are those of `p_value`."""
        from scipy.special import stdtrit

        quantile = float(stdtrit(self._degrees(variance, degrees), (1 + confidence) / 2))
        reach = quantile * self._reach(variance)
        return self.mean - reach, self.mean + reach

    def _degrees(self, variance: float, degrees: float) -> float:
        """Those of the whole deviation (Welch 1947, Satterthwaite 1946), and never more than the
        runs give: few of them may agree by chance."""
        known, most = self.tau2 + self.mean_variance, self.runs - 1
        whole = known**2 / most + variance**2 / degrees
        return min(most, (known + variance) ** 2 / whole) if whole else most

    def _reach(self, variance: float) -> float:
        return math.sqrt(self.tau2 + variance + self.mean_variance) or math.ulp(self.mean)


def find_level(figures: ArrayLike, variances: ArrayLike) -> Level:
    """Return the level of at least two runs.

    Args:
        figures: one for each run, such as logarithms of latency.
        variances: their squared standard errors within each run, above 0.
    """
    values, own = np.asarray(figures, dtype=float), np.asarray(variances, dtype=float)
    tau2 = paule_mandel(values, own)
    weights = 1 / (own + tau2)
    mean = float(np.average(values, weights=weights))
    return Level(mean, float(1 / weights.sum()), tau2, values.size)


def paule_mandel(values: NDArray[np.float64], variances: NDArray[np.float64]) -> float:
    """Return the variance between runs, 0 or more.

    Paule and Mandel (1982): the one at which the weighted squared deviations from the weighted mean
    sum up to their degrees of freedom.
    """
    from scipy.optimize import brentq

    def excess(tau2: float) -> float:
        weights = 1 / (variances + tau2)
        mean = np.average(values, weights=weights)
        return float((weights * (values - mean) ** 2).sum()) - (values.size - 1)

    if excess(0.0) <= 0:
        return 0.0
    high = float(values.var(ddof=1)) + float(variances.max())
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-15, rtol=1e-12))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for being asked together (Holm 1979), in their order."""
    order = np.argsort(p_values)
    adjusted, highest = [0.0] * len(order), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted
