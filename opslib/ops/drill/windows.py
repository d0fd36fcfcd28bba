"""Which requests belong to what was done to the service, and how long they took.

Pure functions on seconds and milliseconds. A request belongs to a window by the moment it was
due, whether or not it could be sent then.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from opslib.ops.drill.record import Interval, WindowKind, WindowStats
from opslib.serving.load import Sample
from opslib.timing.stats import min_samples

Floats = npt.NDArray[np.float64]
BLOCK_S = 1.0
RESAMPLES = 1000
MEDIAN, P99 = 0.5, 0.99


@dataclass(frozen=True)
class Window:
    """A span of the load, in seconds from its first request; the end does not belong to it."""

    kind: WindowKind
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Timings:
    """When requests were due and answered, and which were answered well, as arrays."""

    due_s: Floats
    done_s: Floats
    latency_ms: Floats
    failed: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Timings:
        """Return the timings of a load's samples."""
        due = np.array([one.due_s for one in samples], dtype=np.float64)
        latency = np.array([one.latency_ms for one in samples], dtype=np.float64)
        failed = np.array([one.failed for one in samples], dtype=np.bool_)
        return cls(due, due + latency / 1000, latency, failed)

    def within(self, windows: Sequence[Window]) -> npt.NDArray[np.bool_]:
        """Return which requests were due in one of the windows."""
        inside = np.zeros(len(self.due_s), dtype=np.bool_)
        for window in windows:
            inside |= (self.due_s >= window.start_s) & (self.due_s < window.end_s)
        return inside


def mark_of(sample: Sample) -> str | None:
    """Return what the service calls the model that answered: its generation, else its name."""
    if sample.generation is not None:
        return f"generation {sample.generation}"
    return sample.version_tag or sample.model_sha256


@dataclass(frozen=True)
class AnswerLog:
    """Who answered when: the good answers in the order in which they came."""

    done_s: tuple[float, ...]
    marks: tuple[str | None, ...]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> AnswerLog:
        """Return the good answers among a load's samples."""
        good = [
            (one.due_s + one.latency_ms / 1000, mark_of(one)) for one in samples if not one.failed
        ]
        good.sort(key=lambda one: one[0])
        return cls(tuple(done for done, _ in good), tuple(mark for _, mark in good))

    def mark_before(self, moment_s: float) -> str | None:
        """Return the model of the last answer that came before a moment."""
        at = bisect(self.done_s, moment_s)
        return self.marks[at - 1] if at else None

    def first_other(
        self, before: str | None, start_s: float, until_s: float
    ) -> tuple[float, str] | None:
        """Return when, and by which model, a request was first answered otherwise than by
        `before`, in the span from `start_s` to `until_s`."""
        for at in range(bisect(self.done_s, start_s), bisect(self.done_s, until_s)):
            mark = self.marks[at]
            if mark is not None and mark != before:
                return self.done_s[at], mark
        return None


def find_recovery(timings: Timings, start_s: float) -> float | None:
    """Return when a request that was due after `start_s` was first answered well."""
    done = timings.done_s[(timings.due_s > start_s) & ~timings.failed]
    return float(done.min()) if done.size else None


def describe_window(
    kind: WindowKind, windows: Sequence[Window], timings: Timings, *, seed: int = 0
) -> WindowStats:
    """Return the figures of all windows of one kind taken together. Failed requests count as failed
    and not as latencies. Intervals come from a bootstrap over blocks of a second: requests of the
    same second share their fate."""
    inside = timings.within(windows)
    failed = int((inside & timings.failed).sum())
    good = inside & ~timings.failed
    latency = timings.latency_ms[good]
    figures: dict[str, Any] = {}
    if latency.size:
        blocks = split_blocks(windows, timings.due_s[good], latency)
        figures = {
            "p50_ms": float(np.quantile(latency, MEDIAN)),
            "p50_ci95_ms": quantile_interval(blocks, MEDIAN, seed),
            "worst_ms": float(latency.max()),
        }
        if latency.size >= min_samples(P99):
            figures["p99_ms"] = float(np.quantile(latency, P99))
            figures["p99_ci95_ms"] = quantile_interval(blocks, P99, seed)
    return WindowStats(
        kind=kind,
        windows=len(windows),
        duration_s=sum(one.end_s - one.start_s for one in windows),
        requests=int(inside.sum()),
        failed=failed,
        **figures,
    )


def split_blocks(windows: Sequence[Window], due_s: Floats, latency_ms: Floats) -> list[Floats]:
    """Return the latencies in blocks of a second, none reaching over the end of a window."""
    blocks = []
    for window in windows:
        inside = (due_s >= window.start_s) & (due_s < window.end_s)
        numbers = ((due_s[inside] - window.start_s) // BLOCK_S).astype(np.int64)
        values = latency_ms[inside]
        blocks += [values[numbers == number] for number in np.unique(numbers)]
    return blocks


def quantile_interval(blocks: Sequence[Floats], quantile: float, seed: int) -> Interval | None:
    """Return the 95 % interval of a quantile by resampling whole blocks; None for one block."""
    if len(blocks) < 2:
        return None
    rng = np.random.default_rng(seed)
    found = [
        np.quantile(np.concatenate([blocks[one] for one in picks]), quantile)
        for picks in rng.integers(0, len(blocks), size=(RESAMPLES, len(blocks)))
    ]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def longest_stall_ms(timings: Timings, left_out: npt.NDArray[np.bool_]) -> float:
    """Return the longest time in which requests waited and not one was answered. `left_out`:
    requests that do not count, such as those of a killed service."""
    order = np.argsort(timings.done_s[~left_out], kind="stable")
    if order.size == 0:
        return 0.0
    due, done = timings.due_s[~left_out][order], timings.done_s[~left_out][order]
    oldest_waiting = np.minimum.accumulate(due[::-1])[::-1]
    before = np.concatenate([[-np.inf], done[:-1]])
    return float(1000 * (done - np.maximum(before, oldest_waiting)).max())
