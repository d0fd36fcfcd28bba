"""Statistics of timings: pure functions on sequences, without clock, files or state."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opslib.core.errors import UsageError

Rows = npt.NDArray[np.float64]
Statistic = Callable[[Rows], Rows]

DEFAULT_TRIM = 0.2
DEFAULT_CONFIDENCE = 0.95
DEFAULT_RESAMPLES = 2000
PERCENTILE_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Interval:
    """A closed interval, in the unit of the values that it was made from."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the distance between the two ends."""
        return (self.high - self.low) / 2

    def contains(self, value: float) -> bool:
        """Whether the value lies between the ends, both included."""
        return self.low <= value <= self.high


def trimmed_means(rows: Rows, proportion: float = DEFAULT_TRIM) -> Rows:
    """Mean along the last axis after cutting `proportion` of the values off each end."""
    if not 0 <= proportion < 0.5:
        raise UsageError(f"trim proportion {proportion} is outside [0, 0.5)")
    count = rows.shape[-1]
    cut = int(proportion * count)
    kept: Rows = np.sort(rows, axis=-1)[..., cut : count - cut]
    return np.asarray(kept.mean(axis=-1), dtype=np.float64)


def trimmed_mean(values: Sequence[float], proportion: float = DEFAULT_TRIM) -> float:
    """Mean of the values left after cutting `proportion` of them off each end."""
    return float(trimmed_means(_as_row(values), proportion))


def bootstrap_interval(
    values: Sequence[float],
    statistic: Statistic = trimmed_means,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """95 % percentile bootstrap interval of a statistic (Efron 1979); same seed, same interval.
    `values`: independent values; give rounds or blocks, never the runs inside them. `statistic`:
    reduces the last axis of an array of shape (resamples, len(values))."""
    row = _as_row(values)
    picks = np.random.default_rng(seed).integers(0, row.size, size=(resamples, row.size))
    tail = (1 - DEFAULT_CONFIDENCE) / 2
    low, high = np.quantile(statistic(row[picks]), [tail, 1 - tail])
    return Interval(float(low), float(high))


def block_interval(block_medians_ms: Sequence[float]) -> Interval:
    """Interval of the long-run median latency (ms) from two or more separated blocks.

    Student's t on the logarithms of the block medians, transformed back. The median drifts from
    block to block by more than the runs inside one block tell, so the blocks are the sample.
    The centre is the geometric mean: on the log scale it is the arithmetic mean, for which t is
    exact with any number of blocks, while a median of two to five values has no such pivot and
    a bootstrap of three values can only reshuffle those three and covers far too rarely.
    """
    medians = _as_row(block_medians_ms)
    if medians.size < 2:
        raise UsageError("an interval over blocks needs at least 2 blocks, got 1")
    if medians.min() <= 0:
        raise UsageError(f"a block median of {medians.min()} ms is not a latency")
    logs = student_interval(np.log(medians))
    return Interval(math.exp(logs.low), math.exp(logs.high))


def student_interval(values: npt.ArrayLike, confidence: float = DEFAULT_CONFIDENCE) -> Interval:
    """Student's t interval of the mean; a single value says nothing (infinite)."""
    from scipy.special import stdtrit

    _check_probability("confidence", confidence)
    row = np.asarray(values, dtype=np.float64)
    if row.size < 2:
        return Interval(-math.inf, math.inf)
    quantile = float(stdtrit(row.size - 1, (1 + confidence) / 2))
    reach = quantile * float(row.std(ddof=1)) / math.sqrt(row.size)
    centre = float(row.mean())
    return Interval(centre - reach, centre + reach)


def trimmed_interval(values: Sequence[float], proportion: float = DEFAULT_TRIM) -> Interval:
    """95 % interval of the trimmed mean of five or more independent values.

    Tukey and McLaughlin (1963): Student's t with the winsorized variance and as many degrees of
    freedom as values are left, less one. It holds for few values, where a bootstrap is too narrow.
    """
    from scipy.special import stdtrit

    row = np.sort(_as_row(values))
    if row.size < 5:
        raise UsageError(f"the interval of a trimmed mean needs 5 values, got {row.size}")
    cut = int(proportion * row.size)
    inner = row[cut : row.size - cut]
    spread = float(np.clip(row, inner[0], inner[-1]).std(ddof=1))
    degrees = trimmed_degrees(row.size, proportion)
    quantile = float(stdtrit(degrees, (1 + DEFAULT_CONFIDENCE) / 2))
    reach = quantile * spread * math.sqrt(row.size) / inner.size
    return Interval(float(inner.mean()) - reach, float(inner.mean()) + reach)


def trimmed_degrees(count: int, proportion: float = DEFAULT_TRIM) -> int:
    """Degrees of freedom of `trimmed_interval` of so many values, five or more."""
    return count - 2 * int(proportion * count) - 1


def min_samples(quantile: float, confidence: float = PERCENTILE_CONFIDENCE) -> int:
    """Fewest samples that support a percentile, with two of them beyond it at that confidence. The
    smallest n with P(Binomial(n, 1 - quantile) <= 1) <= 1 - confidence, the early stopping rule of
    MLPerf's load generator: 64 for p90 and 662 for p99 at 99 %. A quantile below one half needs as
    many as its mirror image."""
    _check_probability("quantile", quantile)
    _check_probability("confidence", confidence)
    inside = max(quantile, 1 - quantile)
    high = 2
    while not _supports(high, inside, confidence):
        high *= 2
    counts = range(high // 2, high)
    return counts[0] + bisect_left(
        counts, True, key=lambda count: _supports(count, inside, confidence)
    )


def percentile(samples: Sequence[float], quantile: float) -> float | None:
    """The quantile of the samples, or None where there are too few to support it."""
    if len(samples) < min_samples(quantile):
        return None
    return float(np.quantile(_as_row(samples), quantile))


def _supports(count: int, inside: float, confidence: float) -> bool:
    none_beyond, one_beyond = inside**count, count * (1 - inside) * inside ** (count - 1)
    return none_beyond + one_beyond <= 1 - confidence


def _as_row(values: Sequence[float]) -> Rows:
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or row.size == 0:
        raise UsageError(f"expected a non-empty sequence of numbers, got shape {row.shape}")
    if not np.isfinite(row).all():
        raise UsageError("expected finite numbers, got a NaN or an infinity")
    return row


def _check_probability(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise UsageError(f"{name} {value} is outside (0, 1)")
