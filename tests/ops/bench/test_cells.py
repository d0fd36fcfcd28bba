"""When a figure is conclusive: its ratio to the reference decides, milliseconds are shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from opslib.core.errors import UnavailableError
from opslib.core.sections import BenchSection
from opslib.inference.engine import EngineFacts, EngineRequest
from opslib.ops.bench.cells import Cell
from opslib.ops.bench.record import SpeedComparison
from opslib.ops.bench.relative import relate_cells
from opslib.ops.bench.rows import make_row
from opslib.timing.blocks import Block
from opslib.timing.paired import Comparison
from opslib.timing.related import Round
from opslib.timing.station import Station, TimedBlock, Workload

REQUEST = EngineRequest("onnx", Path("m.onnx"))
STEADY = [Round(2.0 + 0.001 * at, 1.0) for at in range(30)]


def make_cell(rounds: list[Round], **changes: Any) -> Cell:
    """A cell whose milliseconds differ wildly from block to block."""
    cell = Cell("onnx", REQUEST, REQUEST, **changes)
    for boundary in cell.blocks:
        for ms in (1.0, 9.0, 3.0):
            block = Block(times_ms=(ms,) * 11, wall_s=0.1, run_delay_pct=0.0, disturbed=False)
            cell.blocks[boundary].append(TimedBlock(block, None, None, None))
        cell.related[boundary] = list(rounds)
    return cell


def test_a_wide_interval_in_milliseconds_is_shown_and_does_not_decide() -> None:
    row = next(iter(make_row(make_cell(STEADY), BenchSection())))
    assert (row.status, row.reason) == ("measured", None)
    assert row.half_width_pct is not None
    assert row.half_width_pct > 50
    assert row.relative is not None
    assert row.relative.ratio == pytest.approx(2.0145, rel=1e-3)


def test_a_wide_ratio_is_inconclusive_and_says_how_wide() -> None:
    wild = [Round(2.0 if at % 2 else 4.0, 1.0) for at in range(30)]
    row = next(iter(make_row(make_cell(wild), BenchSection())))
    assert row.status == "inconclusive"
    assert str(row.reason).startswith("the ratio to the reference is ±")


def test_a_row_that_was_never_related_says_that_the_budget_ended() -> None:
    row = next(iter(make_row(make_cell([]), BenchSection())))
    assert row.status == "inconclusive"
    assert row.reason == "the time budget ended before it was held against the reference network"


class Crowded:
    """Stands for a station on whose card a second network does not fit."""

    def load(
        self, request: EngineRequest, work: Workload, number: int, *, like: int | None
    ) -> EngineFacts:
        if number % 2:
            raise UnavailableError("out of memory on the card")
        return cast("EngineFacts", None)

    def relate(self, legs: list[Any], *_: object) -> list[list[Round]]:
        return [[] for _ in legs]

    def unload(self, number: int) -> None:
        pass


def test_a_reference_that_does_not_fit_beside_the_model_leaves_its_milliseconds() -> None:
    cell = make_cell([])
    station, work = cast("Station", Crowded()), Workload((), 8, "x:y")
    relate_cells([cell], station, work, seconds=1, targets_pct=[5], fewest=10)
    row = next(iter(make_row(cell, BenchSection())))
    assert row.status == "inconclusive"
    assert row.reason == "not held against the reference network: out of memory on the card"
    assert row.latency_ms is not None
    assert cell.wide(5, 10) == []


def test_a_ratio_that_is_known_stays_known_when_a_later_pass_fails() -> None:
    row = next(iter(make_row(make_cell(STEADY, unrelated="out of memory"), BenchSection())))
    assert (row.status, row.reason) == ("measured", None)


def find_direction(
    verdict: str, interval: tuple[float, float], log_ratios: tuple[float, ...] = (0.1,) * 20
) -> Callable[..., str | None]:
    """The direction of a comparison, given what else is known of it."""

    def find(run_delay_pct: float | None = 0.0, confirmed: bool | None = None) -> str | None:
        comparison = Comparison.model_construct(
            verdict=verdict,
            speedup=math.sqrt(interval[0] * interval[1]),
            speedup_ci95=interval,
            min_effect_pct=2.0,
            rounds=len(log_ratios),
            log_ratios=log_ratios,
            run_delay_pct=run_delay_pct,
            confirmed_in_fresh_processes=confirmed,
        )
        return SpeedComparison.model_construct(batch_size=1, comparison=comparison).direction

    return find


@pytest.mark.parametrize(
    ("verdict", "interval", "direction"),
    [
        ("faster", (1.03, 1.05), "faster"),
        ("inconclusive", (1.5, 4.0), "faster"),
        ("inconclusive", (0.2, 0.8), "slower"),
        ("inconclusive", (1.02, 4.0), None),
        ("inconclusive", (0.8, 1.2), None),
        ("no measurable change", (0.99, 1.01), "alike"),
    ],
)
def test_a_comparison_may_be_too_wide_for_a_figure_and_still_say_which_is_faster(
    verdict: str, interval: tuple[float, float], direction: str | None
) -> None:
    assert find_direction(verdict, interval)() == direction


def test_a_clear_interval_says_nothing_where_the_host_was_busy_or_fresh_processes_disagreed() -> (
    None
):
    assert find_direction("inconclusive", (1.5, 4.0))(run_delay_pct=21.0) is None
    assert find_direction("inconclusive", (1.5, 1.55))(confirmed=False) is None
    assert find_direction("inconclusive", (1.5, 1.55))(confirmed=None) is None  # no time for them


@pytest.mark.parametrize(
    ("log_ratios", "direction"),
    [
        ((0.12, 0.121), None),
        ((0.12, 0.121, 0.119, 0.12), None),
        ((0.9, 0.95, 0.85, 0.92, 0.88), "faster"),
        ((-0.9, -0.95, -0.85, -0.92, -0.88), "slower"),
        ((0.12, 0.4, 0.12, 0.14, 0.13, 0.5), None),
    ],
)
def test_a_few_rounds_say_which_is_faster_as_far_as_students_interval_does(
    log_ratios: tuple[float, ...], direction: str | None
) -> None:
    ends = math.exp(min(log_ratios)), math.exp(max(log_ratios))  # a bootstrap's, all it can say
    assert find_direction("inconclusive", ends, log_ratios)() == direction
