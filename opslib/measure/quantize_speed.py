"""How fast the variants are, by the benchmark's own stations, blocks and paired rounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from opslib.core.config import BenchSection
from opslib.core.errors import OpsError
from opslib.inference.engine import EngineRequest
from opslib.measure.bench_record import BenchRow
from opslib.measure.bench_rows import LONGEST_BLOCK_S, PLANNED_BLOCKS, Cell, make_row
from opslib.measure.paired import Arm, Comparison, compare_arms
from opslib.measure.quantize_record import Speed, VariantSpeed
from opslib.measure.rounds import Deadline, Visit
from opslib.measure.station import Station, Workload, open_inference

COMPARISON_SHARE = 0.5
COMPARISON_TURNS = 4
SHORTEST_BLOCK_S = 0.15


def measure_speed(
    requests: Mapping[str, EngineRequest],
    work: Workload,
    batch_sizes: Sequence[int],
    section: BenchSection,
    *,
    budget_s: float,
    seed: int,
    report: Callable[[float, str], None],
) -> dict[str, tuple[VariantSpeed, ...]]:
    """Return each model's speed at each batch size; the first one is the baseline.

    First every variant against the baseline in interleaved rounds, an undecided comparison again
    while half of the budget lasts; then each alone in separated blocks.
    """
    deadline = Deadline(budget_s)

    def tell(what: str) -> None:
        report(min(1.0, deadline.spent_s / budget_s), what)

    names = list(requests)
    baseline, variants = names[0], names[1:]
    pairs = [(name, size) for size in batch_sizes for name in variants]
    compared: dict[tuple[str, int], Comparison] = {}
    cells = {
        (name, size): Cell(replace(requests[name], batch_size=size), None, None)
        for name in names
        for size in batch_sizes
    }
    with Station("float32") as first, Station("int8") as second:
        for turn in range(COMPARISON_TURNS):
            pending = [pair for pair in pairs if _is_open(pair, compared, cells)]
            if turn and deadline.spent_s > COMPARISON_SHARE * budget_s:
                break
            for name, size in pending:
                again = ", once more" if turn else ""
                tell(f"comparing with float32{again}: {name}, batch {size}")
                try:
                    compared[name, size] = _compare(
                        [(baseline, requests[baseline], first), (name, requests[name], second)],
                        size,
                        work,
                        section,
                        COMPARISON_SHARE * budget_s / len(pairs),
                        seed + turn,
                    )
                except OpsError as error:
                    cells[name, size].reason = str(error)
        _measure_alone(cells, first, work, deadline, seed, tell)
    return {
        name: tuple(
            _speed(size, compared.get((name, size)), _inference_row(cells[name, size], section))
            for size in batch_sizes
        )
        for name in names
    }


def _is_open(
    pair: tuple[str, int],
    compared: Mapping[tuple[str, int], Comparison],
    cells: Mapping[tuple[str, int], Cell],
) -> bool:
    """Whether a pair is still to be compared: never yet, or disturbed the last time."""
    if cells[pair].reason is not None:
        return False
    return pair not in compared or compared[pair].verdict == "inconclusive"


def _compare(
    pair: Sequence[tuple[str, EngineRequest, Station]],
    size: int,
    work: Workload,
    section: BenchSection,
    budget_s: float,
    seed: int,
) -> Comparison:
    requests = [
        replace(
            request,
            batch_size=size,
            settings=replace(request.settings, force_spinning_stop=True),
        )
        for _, request, _ in pair
    ]
    arms = [
        Arm(label, partial(open_inference, request, work))
        for (label, _, _), request in zip(pair, requests, strict=True)
    ]

    @contextmanager
    def open_stations(_arms: Sequence[Arm], _rng: np.random.Generator) -> Iterator[list[Visit]]:
        try:
            for (_, _, station), request in zip(pair, requests, strict=True):
                station.load(request, work)
            yield [station.visit for _, _, station in pair]
        finally:
            for _, _, station in pair:
                station.unload()

    return compare_arms(
        arms[0],
        arms[1],
        open_visits=open_stations,
        min_effect_pct=section.min_effect_pct,
        budget_s=budget_s,
        seed=seed,
    )


def _measure_alone(
    cells: Mapping[tuple[str, int], Cell],
    station: Station,
    work: Workload,
    deadline: Deadline,
    seed: int,
    tell: Callable[[str], None],
) -> None:
    """Add one block at a time to every cell, in random order, until the budget ends."""
    order = random.Random(seed)  # noqa: S311 (order of blocks, no secret)
    for done in range(PLANNED_BLOCKS):
        pending = [key for key, cell in cells.items() if cell.reason is None]
        share_s = deadline.left_s / max(1, len(pending) * (PLANNED_BLOCKS - done))
        seconds = max(SHORTEST_BLOCK_S, min(LONGEST_BLOCK_S, share_s / 2))
        for key in order.sample(pending, len(pending)):
            if deadline.left_s <= 0:
                return
            cell = cells[key]
            tell(f"timing each alone, round {done + 1}: {key[0]}, batch {key[1]}")
            try:
                cell.facts = station.load(cell.request, work)
                cell.blocks["inference"].append(station.time_block("inference", seconds))
                station.unload()
            except OpsError as error:
                cell.reason = str(error)


def _inference_row(cell: Cell, section: BenchSection) -> BenchRow:
    return next(row for row in make_row(cell, section) if row.boundary == "inference")


def _speed(size: int, comparison: Comparison | None, row: BenchRow) -> VariantSpeed:
    verdict: Speed = "unclear"
    if comparison is not None and comparison.verdict == "faster":
        verdict = "faster"
    elif comparison is not None and comparison.verdict == "slower":
        verdict = "slower"
    return VariantSpeed(batch_size=size, speed=verdict, comparison=comparison, row=row)
