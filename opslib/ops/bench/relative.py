"""The latency of a row as a multiple of the reference network's, from rounds that time both.

All batch sizes of an engine are loaded beside their references and visited once a round, so that
what slows the host for a moment slows every pair alike; each pass loads them anew.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from opslib.core.errors import OpsError
from opslib.inference.reference import PREPARE
from opslib.ops.bench.record import Relative
from opslib.timing.station import Leg, RoundsMs, Station, Workload
from opslib.timing.stats import bootstrap_interval, trimmed_mean

if TYPE_CHECKING:
    from opslib.ops.bench.rows import Cell

FEWEST_ROUNDS = 5


def summarize_relative(rounds_ms: RoundsMs) -> Relative | None:
    """Return what the rounds of one row say, or None where there are too few."""
    if len(rounds_ms) < FEWEST_ROUNDS:
        return None
    logs = [float(f"{math.log(ms / reference_ms):.4g}") for ms, reference_ms in rounds_ms]
    interval = bootstrap_interval(logs)
    return Relative(
        ratio=math.exp(trimmed_mean(logs)),
        ci95=(math.exp(interval.low), math.exp(interval.high)),
        half_width_pct=100 * math.expm1(interval.half_width),
        reference_ms=statistics.median(reference_ms for _, reference_ms in rounds_ms),
        log_ratios=tuple(logs),
    )


def relate_cells(
    cells: Sequence["Cell"],
    station: Station,
    work: Workload,
    *,
    seconds: float,
    target_half_width_pct: float,
) -> None:
    """Add rounds to what is still wider than the target among the cells of one engine. A cell whose
    engines do not fit beside the others says so in `unrelated`."""
    theirs = replace(work, preprocess=PREPARE)
    legs: list[Leg] = []
    rounds: list[RoundsMs] = []
    for number, cell in enumerate(cells):
        if cell.reference is None:
            continue
        own, reference = 2 * number, 2 * number + 1
        try:
            settled = replace(cell.request, settings=cell.reference.settings)
            station.load(settled, work, own)
            station.load(cell.reference, theirs, reference)
        except OpsError as error:
            cell.unrelated = str(error)
            continue
        for boundary in cell.wide(target_half_width_pct):
            legs.append(Leg(own, reference, boundary))
            rounds.append(cell.related[boundary])
    try:
        for known, more in zip(rounds, station.relate(legs, seconds), strict=True):
            known += more
    except OpsError as error:
        for cell in cells:
            cell.unrelated = str(error)
    for number in range(2 * len(cells)):
        station.unload(number)
