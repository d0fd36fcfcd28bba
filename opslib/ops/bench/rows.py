"""The latency of every configuration, absolute and against the reference network.

What decides whether a figure is conclusive is its ratio to the reference network, timed in turn
with it: that holds from one day to the next. The absolute figure is what this host did then. Until
all ratios are known each row has one block; what is left of the budget goes to both alike.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from opslib.core.errors import OpsError
from opslib.core.sections import BenchSection
from opslib.inference.engine import EngineFacts
from opslib.ops.bench.cells import Cell, summarize_relative
from opslib.ops.bench.record import BenchRow, LatencyMs, RowStatus
from opslib.ops.bench.relative import relate_cells
from opslib.ops.bench.setup import BenchSetup
from opslib.timing.blocks import (
    Block,
    StagesMs,
    Summary,
    choose_blocks,
)
from opslib.timing.related import Round
from opslib.timing.rounds import Deadline
from opslib.timing.station import Station, TimedBlock, Workload

PLANNED_PASSES = 2  # each loads the engines anew; then whatever is left, until all ratios are known
FIRST_ROUNDS, FEWEST_ROUNDS = 15, 20  # in the first pass, and over at least two
MARGIN = 0.92
BLOCKS_SHARE, SETTLED_SHARE = 0.15, 0.5  # of a pass, before all ratios are known and afterwards
SETTLED_PASS_S = 10.0
LONGEST_BLOCK_S = 1.0
SHORTEST_BLOCK_S = 0.1
SHORTEST_ROUND_MS = 10.0


def make_cells(
    setup: BenchSetup,
    facts: dict[str, EngineFacts],
    problems: Mapping[str, OpsError],
    stopped: OpsError | None,
    references: Path,
) -> list[Cell]:
    """Return one cell for each engine and batch size; those that cannot run carry the reason.
    `references`: the folder of the reference networks."""
    return [
        Cell(
            name=engine,
            request=setup.at_batch(engine, size),
            reference=setup.reference(engine, size, references),
            facts=facts.get(engine),
            error=problems.get(engine) or stopped,
        )
        for engine in setup.engines
        for size in setup.batch_sizes
    ]


def measure_cells(
    cells: list[Cell],
    stations: Mapping[str, Station],
    work: Workload,
    *,
    deadline: Deadline,
    target_half_width_pct: float,
    rng: random.Random,
    report: Callable[[str], None],
) -> None:
    """Add blocks, each alone and in random order, and rounds beside the reference to `cells`,
    until all are narrow or time is up. `stations`: by the cells' names."""
    settled_pct = MARGIN * target_half_width_pct  # the rounds that follow may widen it again
    load_s, pass_number = 0.0, 0
    while deadline.left_s > 0:
        alive = [cell for cell in cells if cell.reason is None]
        fewest = FEWEST_ROUNDS if pass_number else FIRST_ROUNDS
        related = [cell for cell in alive if cell.wide(settled_pct, fewest)]
        open_still = bool(related)  # then what decides goes before every further block
        timed = [
            cell
            for cell in alive
            if cell.wants_block(target_half_width_pct) and not (open_still and pass_number)
        ]
        goal_pct = settled_pct if open_still else settled_pct / 2
        related = related or [cell for cell in alive if cell.wide(goal_pct, fewest)]
        if not related and not timed:
            break
        if open_still:
            pass_s, share = deadline.left_s / max(1, PLANNED_PASSES - pass_number), BLOCKS_SHARE
        else:
            pass_s, share = min(deadline.left_s, SETTLED_PASS_S), SETTLED_SHARE
        ends_s, blocks_s = deadline.spent_s + pass_s, pass_s * (share if related else 1)
        for cell in rng.sample(timed, len(timed)):
            if deadline.left_s <= 0:
                break
            one = f"{cell.name}, batch {cell.request.batch_size}"
            report(f"timing each alone, round {pass_number + 1}: {one}")
            share_s = (blocks_s / len(timed) - load_s) / len(cell.blocks)
            seconds = max(SHORTEST_BLOCK_S, min(LONGEST_BLOCK_S, share_s))
            load_s = max(load_s, _measure_cell(cell, stations[cell.name], work, seconds))
        related = [cell for cell in related if cell.reason is None]
        while related and deadline.left_s > 0:
            name = related[0].name
            theirs = [cell for cell in related if cell.name == name]
            report(f"timing in turn with the reference, round {pass_number + 1}: {name}")
            part = sum(map(_round_ms, theirs)) / sum(map(_round_ms, related))
            relate_cells(
                theirs,
                stations[name],
                work,
                seconds=max(0.0, part * (ends_s - deadline.spent_s)),
                targets_pct=sorted({target_half_width_pct, settled_pct, goal_pct}, reverse=True),
                fewest=fewest,
            )
            related = [cell for cell in related if cell.name != name]
        pass_number += 1


def _round_ms(cell: Cell) -> float:
    """About how long one round of the cell takes; the same for all before the first."""
    last = [rounds[-1] if rounds else Round(1.0, 1.0) for rounds in cell.related.values()]
    return sum(max(SHORTEST_ROUND_MS, one.ms + one.reference_ms) for one in last)


def _measure_cell(cell: Cell, station: Station, work: Workload, seconds: float) -> float:
    """Measure one block within each boundary; return the seconds that loading took."""
    started = time.monotonic()
    try:
        cell.facts = station.load(cell.request, work)
        load_s = time.monotonic() - started
        for boundary, blocks in cell.blocks.items():
            blocks.append(station.time_block(boundary, seconds))
        station.unload()
    except OpsError as error:
        cell.error = error
        return 0.0
    return load_s


def make_row(cell: Cell, section: BenchSection) -> Iterator[BenchRow]:
    """Yield the cell's rows, one for each boundary."""
    facts, request, size = cell.facts, cell.request, cell.request.batch_size
    for boundary, blocks in cell.blocks.items():
        summary = None if cell.reason else cell.summary(boundary)
        problem = cell.reason or cell.problem(boundary, section.target_half_width_pct)
        status: RowStatus = "inconclusive" if problem else "measured"
        all_blocks = [timed.block for timed in blocks]
        used = choose_blocks(all_blocks)
        peaks = [timed.peak_rss_bytes for timed in blocks if timed.peak_rss_bytes]
        yield BenchRow(
            engine="onnx" if request.engine == "onnx" else "torch",
            provider=facts.provider if facts else "none",
            requested_providers=",".join(request.providers),
            batch_size=size,
            threads=facts.threads if facts else request.settings.intra_op_num_threads,
            boundary=boundary,
            status="unavailable" if cell.reason else status,
            reason=problem or (facts.note if facts else None),
            stages_ms=_median_stages([timed.stages for timed in blocks if timed.stages]),
            peak_rss_bytes=max(peaks, default=None),
            relative=None if cell.reason else summarize_relative(cell.related[boundary]),
            first_run_ms=_first_run_ms(blocks) if boundary == "inference" else None,
            options=facts.options if facts else {},
            raw_ms=tuple(map(_raw_ms, used)),
            disturbed_raw_ms=tuple(_raw_ms(block) for block in all_blocks if block not in used),
            **(_figures(summary, size) if summary else {}),
        )


def _figures(summary: Summary, batch_size: int) -> dict[str, Any]:
    """Latency and throughput as a row says them."""
    slow_fast = reversed(summary.ci95_ms) if summary.ci95_ms else ()
    return {
        "latency_ms": LatencyMs(
            p50=summary.p50_ms,
            p90=summary.p90_ms,
            p99=summary.p99_ms,
            ci95=summary.ci95_ms,
            n=summary.n,
        ),
        "half_width_pct": summary.half_width_pct,
        "throughput_img_s": 1000 * batch_size / summary.p50_ms,
        "throughput_ci95_img_s": tuple(1000 * batch_size / ms for ms in slow_fast) or None,
        "run_delay_pct": summary.run_delay_pct,
    }


def _first_run_ms(blocks: list[TimedBlock]) -> float | None:
    known = [one.first_run_ms for one in blocks if one.first_run_ms is not None]
    return statistics.median(known) if known else None


def _raw_ms(block: Block) -> tuple[float, ...]:
    return tuple(float(f"{one:.4g}") for one in block.times_ms)


def _median_stages(stages: list[StagesMs]) -> StagesMs | None:
    return sorted(stages, key=lambda one: one.preprocess)[len(stages) // 2] if stages else None
