"""The latency of a row as a multiple of the reference network's, from rounds that time both.

All batch sizes of an engine are loaded beside their references and visited once a round, so that
what slows the host for a moment slows every pair alike; each pass loads them anew.
"""

from collections.abc import Sequence
from dataclasses import replace

from opslib.core.errors import OpsError
from opslib.inference.reference import PREPARE
from opslib.ops.bench.cells import Cell
from opslib.timing.related import Round
from opslib.timing.station import Leg, Station, Workload


def relate_cells(
    cells: Sequence[Cell],
    station: Station,
    work: Workload,
    *,
    seconds: float,
    targets_pct: Sequence[float],
    fewest: int,
) -> None:
    """Add rounds to what is wider than the last target among the cells of one engine. A cell whose
    engines do not fit beside the others says so in `unrelated`."""
    theirs = replace(work, preprocess=PREPARE)
    legs: list[Leg] = []
    rounds: list[list[Round]] = []
    like: tuple[int, int] | tuple[None, None] = (None, None)
    for number, cell in enumerate(cells):
        if cell.reference is None:
            continue
        own, reference = 2 * number, 2 * number + 1
        try:
            request = replace(cell.request, settings=cell.reference.settings)
            station.load(request, work, own, like=like[0])
            station.load(cell.reference, theirs, reference, like=like[1])
        except OpsError as error:
            cell.unrelated = str(error)
            continue
        like = own, reference
        for boundary in cell.wide(targets_pct[-1], fewest):
            legs.append(Leg(own, reference, boundary, tuple(cell.related[boundary])))
            rounds.append(cell.related[boundary])
    try:
        found = station.relate(legs, seconds, targets_pct, fewest)
        for known, more in zip(rounds, found, strict=True):
            known += more
    except OpsError as error:
        for cell in cells:
            cell.unrelated = str(error)
    for number in range(2 * len(cells)):
        station.unload(number)
