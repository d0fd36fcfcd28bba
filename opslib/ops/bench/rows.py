"""The latency of every configuration, absolute and against the reference network.

What decides whether a figure is conclusive is its ratio to the reference network, timed in turn
with it: that holds from one day to the next. The absolute figure is what this host did then.
Five short blocks tell more than three long ones of the same total: drift between blocks is what
makes an interval wide, and Student's t needs 2.8 standard errors at five blocks, 4.3 at three.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from opslib.core.errors import OpsError
from opslib.core.sections import BenchSection
from opslib.inference.engine import EngineFacts, EngineRequest
from opslib.ops.bench.record import BenchRow, LatencyMs, Relative, RowStatus
from opslib.ops.bench.relative import summarize_relative
from opslib.ops.bench.setup import BenchSetup
from opslib.timing.blocks import (
    MIN_RUNS,
    Block,
    Boundary,
    StagesMs,
    Summary,
    choose_blocks,
    summarize_blocks,
)
from opslib.timing.rounds import Deadline
from opslib.timing.station import RelatedTimes, Station, TimedBlock, Workload

BOUNDARIES: tuple[Boundary, ...] = ("inference", "end_to_end")
PLANNED_BLOCKS = 5
LONGEST_BLOCK_S = 1.0
SHORTEST_BLOCK_S = 0.2


@dataclass
class Cell:
    """One model at one batch size, and the blocks measured so far within each boundary."""

    name: str
    request: EngineRequest
    reference: EngineRequest | None = None
    facts: EngineFacts | None = None
    reason: str | None = None
    blocks: dict[Boundary, list[TimedBlock]] = field(
        default_factory=lambda: {boundary: [] for boundary in BOUNDARIES}
    )

    related: list[RelatedTimes] = field(default_factory=list)

    def summary(self, boundary: Boundary) -> Summary | None:
        """Return what the blocks of one boundary say, or None where there is none."""
        blocks = [timed.block for timed in self.blocks[boundary]]
        return summarize_blocks(blocks) if blocks else None

    def problem(self, boundary: Boundary, target_half_width_pct: float) -> str | None:
        """Return why the figure of one boundary is not conclusive, or None. Its ratio to the
        reference decides; where there is none beside it, the absolute latency."""
        found = self.summary(boundary)
        figure: Summary | Relative | None = found
        if self.reference is not None:
            figure = summarize_relative(self.related, boundary)
        if found is None or figure is None:
            return "the time budget ended before it was measured"
        if figure.half_width_pct is None:
            return "the time budget ended after one round; an interval needs two"
        if figure is found and found.n < MIN_RUNS:
            return f"{found.n} runs fitted into the time budget; a median needs {MIN_RUNS}"
        if figure.half_width_pct > target_half_width_pct:
            what = "the 95 % interval" if figure is found else "the ratio to the reference"
            wide = f"{what} is ±{figure.half_width_pct:.1f} %"
            return f"{wide}, ±{target_half_width_pct:g} % is wanted"
        return None


def make_cells(
    setup: BenchSetup,
    facts: dict[str, EngineFacts],
    problems: dict[str, str],
    stopped: str | None,
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
            reason=problems.get(engine) or stopped,
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
    """Add blocks to `cells`, each alone, in random order, until all are narrow or time is up.
    `stations`: by the cells' names."""
    load_s, pass_number, pending = 0.0, 0, list(cells)
    while pending and deadline.left_s > 0:
        each = len(pending[0].blocks) + (pending[0].reference is not None)
        blocks_left = max(1, PLANNED_BLOCKS - pass_number) * len(pending) * each
        fitting_s = deadline.left_s / blocks_left - load_s / each
        seconds = max(SHORTEST_BLOCK_S, min(LONGEST_BLOCK_S, fitting_s))
        for cell in rng.sample(pending, len(pending)):
            if deadline.left_s <= 0:
                break
            one = f"{cell.name}, batch {cell.request.batch_size}"
            report(f"timing each alone, round {pass_number + 1}: {one}")
            load_s = max(load_s, _measure_cell(cell, stations[cell.name], work, seconds))
        pass_number += 1
        pending = [cell for cell in cells if cell.reason is None]
        if pass_number >= PLANNED_BLOCKS:
            pending = [
                cell
                for cell in pending
                if any(cell.problem(one, target_half_width_pct) for one in cell.blocks)
            ]


def _measure_cell(cell: Cell, station: Station, work: Workload, seconds: float) -> float:
    """Measure one block within each boundary; return the seconds that loading took."""
    started = time.monotonic()
    try:
        cell.facts = station.load(cell.request, work)
        load_s = time.monotonic() - started
        for boundary, blocks in cell.blocks.items():
            blocks.append(station.time_block(boundary, seconds))
        if cell.reference is not None:
            settings = cell.reference.settings
            if cell.facts.provider == "CPU" and cell.request.settings != settings:
                station.load(replace(cell.request, settings=settings), work)
            cell.related.append(station.relate(cell.reference, work, seconds))
        station.unload()
    except OpsError as error:
        cell.reason = str(error)
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
            relative=None if cell.reason else summarize_relative(cell.related, boundary),
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
