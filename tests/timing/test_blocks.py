"""Blocks of absolute latency on a clock that the test turns."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

import pytest

from opslib.core.errors import UsageError
from opslib.timing import blocks
from opslib.timing.blocks import (
    Block,
    choose_blocks,
    measure_block,
    summarize_blocks,
    time_runs,
)

pytestmark = pytest.mark.alone


class FakeClock:
    """Nanoseconds that pass only when a run says so."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def run_taking(self, ms: float) -> None:
        self.now_ns += int(ms * 1e6)


def block_of(times_ms: Sequence[float], run_delay_pct: float = 0.0) -> Block:
    return Block(
        times_ms=tuple(times_ms),
        wall_s=sum(times_ms) / 1000,
        run_delay_pct=run_delay_pct,
        disturbed=run_delay_pct > 20,
    )


def test_warm_up_runs_are_discarded() -> None:
    clock = FakeClock()
    durations: Iterator[float] = iter([50.0, 40.0, 30.0] + [10.0] * 1000)
    block = measure_block(
        lambda: clock.run_taking(next(durations)), seconds=0.5, warmup=3, clock=clock
    )
    assert set(block.times_ms) == {10.0}


def test_a_block_lasts_as_long_as_asked() -> None:
    clock = FakeClock()
    block = measure_block(lambda: clock.run_taking(2), seconds=0.1, warmup=1, clock=clock)
    assert len(block.times_ms) == 50
    assert block.wall_s == pytest.approx(0.1)
    assert block.median_ms == 2.0


def test_a_slow_run_is_timed_the_minimum_number_of_times() -> None:
    clock = FakeClock()
    block = measure_block(lambda: clock.run_taking(400), seconds=0.1, warmup=1, clock=clock)
    assert len(block.times_ms) == 11


def test_the_memory_of_a_block_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_RUNS_PER_BLOCK", 100)
    clock = FakeClock()
    block = measure_block(lambda: clock.run_taking(0.001), seconds=1, warmup=1, clock=clock)
    assert len(block.times_ms) == 100


def test_garbage_collection_rests_while_runs_are_timed_and_is_restored() -> None:
    seen: list[bool] = []
    measure_block(lambda: seen.append(gc.isenabled()), seconds=1e-6, warmup=1, min_runs=2)
    assert not any(seen)
    assert gc.isenabled()


def test_garbage_collection_is_restored_after_a_run_that_fails() -> None:
    def fail() -> None:
        raise ValueError("broken model")

    with pytest.raises(ValueError, match="broken model"):
        measure_block(fail)
    assert gc.isenabled()


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"warmup": 0}, {"min_runs": 0}])
def test_an_impossible_block_is_refused_by_the_name_of_its_setting(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        measure_block(lambda: None, **wrong)


def test_each_run_is_timed_on_its_own() -> None:
    clock = FakeClock()
    durations = iter([1.0, 2.0, 3.0])
    assert time_runs(lambda: clock.run_taking(next(durations)), 3, clock) == [
        10**6,
        2 * 10**6,
        3 * 10**6,
    ]


def test_the_summary_is_the_median_of_block_medians_with_an_interval_between_blocks() -> None:
    summary = summarize_blocks([block_of([5.0] * 30), block_of([5.2] * 500), block_of([5.1] * 30)])
    assert summary.p50_ms == 5.1
    assert summary.ci95_ms is not None
    assert summary.ci95_ms[0] < 5.0 < 5.2 < summary.ci95_ms[1]
    assert summary.half_width_pct == pytest.approx(4.8, abs=0.2)
    assert summary.n == 560
    assert summary.p90_ms == 5.2
    assert summary.p99_ms is None


def test_an_interval_reaches_the_median_of_blocks_that_are_askew() -> None:
    summary = summarize_blocks([block_of([ms] * 11) for ms in [1.0] * 11 + [1.1] * 9])
    assert summary.p50_ms == 1.0
    assert summary.ci95_ms is not None
    assert summary.ci95_ms[0] <= summary.p50_ms <= summary.ci95_ms[1]


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_blocks_have_no_interval(count: int) -> None:
    summary = summarize_blocks([block_of([1.0] * 20, 30.0)] * count)
    assert summary.ci95_ms is None
    assert summary.half_width_pct is None
    assert summary.p90_ms is None
    assert summary.disturbed_blocks == count


def test_no_blocks_cannot_be_summarized() -> None:
    with pytest.raises(UsageError, match="at least one block"):
        summarize_blocks([])


def test_disturbed_blocks_are_left_out_where_three_calm_ones_remain() -> None:
    calm = [block_of([1.0] * 20), block_of([1.1] * 20), block_of([1.2] * 20)]
    disturbed = block_of([9.0] * 20, 30.0)
    assert choose_blocks([*calm, disturbed]) == calm
    assert choose_blocks([*calm[:2], disturbed]) == [*calm[:2], disturbed]
    summary = summarize_blocks([*calm, disturbed])
    assert (summary.p50_ms, summary.n, summary.disturbed_blocks) == (1.1, 60, 1)
