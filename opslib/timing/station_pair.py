"""Two engines against each other, each in its own station, in interleaved rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from opslib.inference.engine import EngineRequest
from opslib.timing.paired import Arm, Comparison, compare_arms
from opslib.timing.rounds import Visit
from opslib.timing.station import Station, Workload, open_inference


@dataclass(frozen=True)
class Side:
    """One side of a comparison: what it is called, what is loaded, and where.

    The request is one for a comparison, without threads that spin between calls
    (`force_spinning_stop`), so that the idle side does not slow the other.
    """

    label: str
    request: EngineRequest
    station: Station


def compare_stations(
    baseline: Side,
    candidate: Side,
    work: Workload,
    *,
    min_effect_pct: float,
    budget_s: float,
    seed: int,
) -> Comparison:
    """Return how fast the candidate infers against the baseline; both stations end up unloaded."""
    sides = (baseline, candidate)
    arms = [Arm(side.label, partial(open_inference, side.request, work)) for side in sides]

    @contextmanager
    def open_stations(_arms: Sequence[Arm], _rng: np.random.Generator) -> Iterator[list[Visit]]:
        try:
            for side in sides:
                side.station.load(side.request, work)
            yield [side.station.visit for side in sides]
        finally:
            for side in sides:
                side.station.unload()

    return compare_arms(
        arms[0],
        arms[1],
        open_visits=open_stations,
        min_effect_pct=min_effect_pct,
        budget_s=budget_s,
        seed=seed,
    )
