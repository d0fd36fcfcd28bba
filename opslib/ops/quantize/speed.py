"""How fast the variants are, by the benchmark's own stations, blocks and paired rounds."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from opslib.core.errors import OpsError
from opslib.core.sections import BenchSection
from opslib.inference.engine import EngineRequest
from opslib.ops.bench.cells import Cell
from opslib.ops.bench.record import BenchRow
from opslib.ops.bench.rows import make_row, measure_cells
from opslib.ops.quantize.record import Speed, VariantSpeed
from opslib.timing.disturbance import is_disturbed
from opslib.timing.paired import Comparison
from opslib.timing.rounds import Deadline
from opslib.timing.station import Side, Station, Workload, compare_stations

COMPARISON_SHARE = 0.5

Pair = tuple[str, int]


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
    """Return each model's speed at each batch size; the first one is the baseline. First every
    variant against the baseline in interleaved rounds; a comparison during which the host was
    disturbed is made once more, if half of the budget is not spent yet. An undisturbed answer
    stands, whatever it says. Then each alone in separated blocks."""
    deadline = Deadline(budget_s)

    def tell(what: str) -> None:
        report(min(1.0, deadline.spent_s / budget_s), what)

    baseline, *variants = requests
    pairs = [(name, size) for size in batch_sizes for name in variants]
    cells = {
        (name, size): Cell(name, replace(request, batch_size=size), blocks={"inference": []})
        for name, request in requests.items()
        for size in batch_sizes
    }
    with Station("float32") as first, Station("int8") as second:
        share_s = COMPARISON_SHARE * budget_s / max(1, len(pairs))

        def compare(pair: tuple[str, int], turn: int) -> Comparison:
            return compare_stations(
                Side(baseline, cells[baseline, pair[1]].request, first),
                Side(pair[0], cells[pair].request, second),
                work,
                min_effect_pct=section.min_effect_pct,
                budget_s=share_s,
                seed=seed + turn,
            )

        compared, problems = compare_pairs(
            pairs, compare, lambda: deadline.spent_s <= COMPARISON_SHARE * budget_s, tell
        )
        for pair, problem in problems.items():
            cells[pair].error = OpsError(problem)
        measure_cells(
            [cell for cell in cells.values() if cell.reason is None],
            dict.fromkeys(requests, first),
            work,
            deadline=deadline,
            target_half_width_pct=math.inf,
            rng=random.Random(seed),  # noqa: S311 (order of blocks, no secret)
            report=tell,
        )
    return {
        name: tuple(
            _speed(size, compared.get((name, size)), next(make_row(cells[name, size], section)))
            for size in batch_sizes
        )
        for name in requests
    }


def compare_pairs(
    pairs: Sequence[Pair],
    compare: Callable[[Pair, int], Comparison],
    has_time: Callable[[], bool],
    tell: Callable[[str], None],
) -> tuple[dict[Pair, Comparison], dict[Pair, str]]:
    """Return each pair's comparison, and why there is none for those that have none.

    Only a comparison that the host disturbed is made again, once: to repeat until a verdict falls
    would find a difference where there is none. One that fails the second time keeps its first.

    `compare`: told the pair (variant, batch size) and the turn, 0 or 1. `has_time`: whether a
    second turn may still begin.
    """
    compared: dict[Pair, Comparison] = {}
    problems: dict[Pair, str] = {}
    for pair in pairs:
        tell(f"comparing with float32: {pair[0]}, batch {pair[1]}")
        try:
            compared[pair] = compare(pair, 0)
        except OpsError as error:
            problems[pair] = str(error)
    for pair in [pair for pair, one in compared.items() if is_disturbed(one.run_delay_pct)]:
        if not has_time():
            break
        tell(f"comparing with float32, once more: {pair[0]}, batch {pair[1]}")
        try:
            compared[pair] = compare(pair, 1)
        except OpsError as error:
            tell(f"keeping the first comparison: {pair[0]}, batch {pair[1]}: {error}")
    return compared, problems


def _speed(size: int, comparison: Comparison | None, row: BenchRow) -> VariantSpeed:
    said = comparison.verdict if comparison else None
    speed: Speed = said if said in ("faster", "slower") else "unclear"
    return VariantSpeed(batch_size=size, speed=speed, comparison=comparison, row=row)
