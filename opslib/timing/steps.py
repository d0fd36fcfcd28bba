"""Steps in a series of figures: where its level changed for good.

Optimal partitioning (Jackson et al. 2005, "An algorithm for optimal partitioning of data on an
interval"): of all ways to cut the series into stretches of constant level, the one with the least
weighted squared deviation plus a price for each cut, found exactly by dynamic programming. Then a
cut has to be sure beside the noise that is left around it (the merge step of Fleming et al. 2023,
"Hunter: Using Change Point Detection to Hunt for Performance Regressions"): differences of
neighbours tell too little noise where values come in runs or where only the noise grew.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

SHORTEST = 3  # runs; fewer are outliers, not a level
FEWEST_RUNS = 2 * SHORTEST
PRICE = 3.0  # of a cut, in log(n) squared deviations: at 4 more regressions of ten runs are missed
SURE = 4.5  # log(n) of evidence that a cut needs: at 4 noise that grew within 50 runs has steps
AROUND = 80  # values before and after a cut that tell the noise left there
NEAR = 41  # differences from which the noise at a place is told
OUTLIER = 4.0  # deviations from the median of five neighbours
_KEPT = 0.9  # of the differences: a step or an outlier is no noise
# The mean of the smaller 90 % of |x - y| for two normal values of deviation 1.
_KEPT_MEAN = 0.6573 * math.sqrt(2)


def find_steps(values: ArrayLike) -> tuple[int, ...]:
    """Return the places at which the level changed: of each step the first value after it.

    A value that its neighbours do not share is an outlier and no step; a change of the noise alone
    is none either. A step is found from the third value after it on.

    Args:
        values: finite figures in the order of time, in one unit.
    """
    series = np.asarray(values, dtype=np.float64)
    count = series.size
    if count < FEWEST_RUNS or np.ptp(series) == 0:
        return ()
    noise = _noise(series)
    calm = _without_outliers(series, noise) - np.median(series)
    weights = 1 / noise**2
    sums = (np.concatenate([[0.0], np.cumsum(weights * calm**power)]) for power in range(3))
    weight, first, second = sums
    price = PRICE * math.log(count)
    cost, cut = np.full(count + 1, np.inf), np.zeros(count + 1, dtype=int)
    cost[0] = -price
    for end in range(SHORTEST, count + 1):
        starts = np.arange(end - SHORTEST + 1)
        level = (first[end] - first[starts]) ** 2 / (weight[end] - weight[starts])
        costs = cost[starts] + price + second[end] - second[starts] - level
        cut[end] = np.argmin(costs)
        cost[end] = costs[cut[end]]
    steps, at = [], int(cut[count])
    while at > 0:
        steps.append(at)
        at = int(cut[at])
    return _only_sure(calm, steps[::-1], SURE * math.log(count))


def _only_sure(calm: NDArray[np.float64], steps: list[int], least: float) -> tuple[int, ...]:
    """Take the least sure step away until each of those that remain has enough evidence."""
    while steps:
        edges = [0, *steps, calm.size]
        parts = [calm[start:end] for start, end in pairwise(edges)]
        evidence = [_evidence(before, after) for before, after in pairwise(parts)]
        weakest = int(np.argmin(evidence))
        if evidence[weakest] >= least:
            break
        del steps[weakest]
    return tuple(steps)


def _evidence(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """How much likelier two levels are than one: the statistic of Student's test, as deviance."""
    levels = float(before.mean()), float(after.mean())
    left = np.concatenate([before[-AROUND:] - levels[0], after[:AROUND] - levels[1]])
    noise = float(np.mean(left**2))
    gain = (levels[0] - levels[1]) ** 2 * before.size * after.size / (before.size + after.size)
    return left.size * math.log1p(gain / left.size / noise) if noise else math.inf


def _noise(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard deviation around each value, told by the differences of neighbours."""
    differences = np.abs(np.diff(series))
    width = min(NEAR, differences.size)
    windows = np.lib.stride_tricks.sliding_window_view(differences, width)
    here = _spread(windows)[np.clip(np.arange(series.size) - width // 2, 0, len(windows) - 1)]
    everywhere = float(_spread(differences)) or float(np.ptp(series)) * 1e-6
    return np.maximum(here, everywhere / 2)


def _spread(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = max(1, int(_KEPT * differences.shape[-1]))
    smallest = np.sort(differences, axis=-1)[..., :kept]
    return np.asarray(smallest.mean(axis=-1) / _KEPT_MEAN, dtype=np.float64)


def _without_outliers(
    series: NDArray[np.float64], noise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values far from the median of their neighbours become that median (Hampel's filter)."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(series, 2, mode="edge"), 5)
    medians = np.median(around, axis=-1)
    return np.where(np.abs(series - medians) > OUTLIER * noise, medians, series)
