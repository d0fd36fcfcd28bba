"""Absolute latency of one callable: quiet timing loops, separated blocks and their summary.

Medians of one-second blocks drift by one to three percent, so one block, however many runs it has,
does not tell the long-run median; several separated blocks do, and their spread is the interval.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from opslib.core.errors import UsageError
from opslib.core.records import Part
from opslib.timing.disturbance import (
    is_disturbed,
    read_thread_delays_s,
    share_pct,
    worst_growth_s,
)
from opslib.timing.stats import Interval, block_interval, percentile

Boundary = Literal["inference", "end_to_end"]


class StagesMs(Part):
    """Where an end-to-end call spends its time: medians in milliseconds for a whole batch.
    `preprocess` is decode and transform together; foreign preprocessing cannot be split."""

    decode: float | None
    transform: float | None
    preprocess: float
    inference: float


Call = Callable[[], Any]
Clock = Callable[[], int]

FEWEST_BLOCKS = 3  # for an interval: that of two is huge; and calm ones, to leave others out
DEFAULT_BLOCK_S = 1.0
DEFAULT_WARMUP = 10
MIN_RUNS = 11
MAX_RUNS_PER_BLOCK = 200_000


class Block(Part):
    """Times of the runs of one uninterrupted block, in the order in which they ran. `run_delay_pct`
    is the wait of the thread of this process that waited longest for a CPU."""

    times_ms: tuple[float, ...]
    wall_s: float
    run_delay_pct: float | None
    disturbed: bool

    @property
    def median_ms(self) -> float:
        """Median time of one run of the block."""
        return float(np.median(self.times_ms))


class Summary(Part):
    """Latency of one run over several blocks; what the sample does not support is None. `ci95_ms`
    covers the long-run median, from the spread between at least three blocks, and reaches `p50_ms`
    where the blocks are so askew that the interval of their mean would not. Blocks are those of
    `choose_blocks`; `disturbed_blocks` counts the disturbed ones among all."""

    p50_ms: float
    ci95_ms: tuple[float, float] | None
    half_width_pct: float | None
    p90_ms: float | None
    p99_ms: float | None
    n: int
    block_medians_ms: tuple[float, ...]
    disturbed_blocks: int
    run_delay_pct: float | None


def measure_block(
    call: Call,
    *,
    seconds: float = DEFAULT_BLOCK_S,
    warmup: int = DEFAULT_WARMUP,
    min_runs: int = MIN_RUNS,
    clock: Clock = time.perf_counter_ns,
) -> Block:
    """Time runs for `seconds` and at least `min_runs` times, after `warmup` discarded runs."""
    if seconds <= 0 or warmup < 1 or min_runs < 1:
        raise UsageError(
            f"a block needs seconds > 0, warmup >= 1 and min_runs >= 1, got seconds={seconds}, "
            f"warmup={warmup}, min_runs={min_runs}"
        )
    gc.collect()
    with paused_garbage_collection():
        fastest_ns = max(1, min(time_runs(call, warmup, clock)))
        fitting = int(2 * seconds * 1e9 / fastest_ns) + 1
        capacity = max(min_runs, min(fitting, MAX_RUNS_PER_BLOCK))
        delays_before = read_thread_delays_s()
        started = clock()
        until_ns = started + int(seconds * 1e9)
        times_ns = time_runs(call, capacity, clock, until_ns, min_runs)
        wall_s = (clock() - started) / 1e9
        delays_after = read_thread_delays_s()
    run_delay_pct = share_pct(worst_growth_s(delays_before, delays_after), wall_s)
    return Block(
        times_ms=tuple(one / 1e6 for one in times_ns),
        wall_s=wall_s,
        run_delay_pct=run_delay_pct,
        disturbed=is_disturbed(run_delay_pct),
    )


def time_runs(
    call: Call,
    runs: int,
    clock: Clock = time.perf_counter_ns,
    until_ns: int | None = None,
    min_runs: int = 0,
) -> list[int]:
    """Nanoseconds of each of `runs` runs, or of fewer once `until_ns` is past and enough ran."""
    times_ns = [0] * runs
    for index in range(runs):
        started = clock()
        call()
        ended = clock()
        times_ns[index] = ended - started
        if until_ns is not None and ended >= until_ns and index + 1 >= min_runs:
            del times_ns[index + 1 :]
            break
    return times_ns


def summarize_blocks(blocks: Sequence[Block]) -> Summary:
    """Median, interval and supported percentiles over all runs of the blocks."""
    if not blocks:
        raise UsageError("expected at least one block to summarize")
    disturbed_blocks = sum(block.disturbed for block in blocks)
    blocks = choose_blocks(blocks)
    medians_ms = tuple(block.median_ms for block in blocks)
    p50_ms = float(np.median(medians_ms))
    times_ms = [time_ms for block in blocks for time_ms in block.times_ms]
    interval = None
    if len(blocks) >= FEWEST_BLOCKS:
        around = block_interval(medians_ms)
        interval = Interval(min(around.low, p50_ms), max(around.high, p50_ms))
    delays_pct = [b.run_delay_pct for b in blocks if b.run_delay_pct is not None]
    return Summary(
        p50_ms=p50_ms,
        ci95_ms=None if interval is None else (interval.low, interval.high),
        half_width_pct=None if interval is None else 100 * interval.half_width / p50_ms,
        p90_ms=percentile(times_ms, 0.90),
        p99_ms=percentile(times_ms, 0.99),
        n=len(times_ms),
        block_medians_ms=medians_ms,
        disturbed_blocks=disturbed_blocks,
        run_delay_pct=max(delays_pct, default=None),
    )


def choose_blocks(blocks: Sequence[Block]) -> list[Block]:
    """The calm blocks where there are at least three, else all of them. Which blocks are left out
    depends on waiting for a CPU, never on how long the runs took."""
    calm = [block for block in blocks if not block.disturbed]
    return calm if len(calm) >= FEWEST_BLOCKS else list(blocks)


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Collect no garbage during the block; the collector is then as it was before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
