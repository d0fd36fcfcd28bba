"""Sessions on the track: loaded side by side in one process, and held against the model as written.

A setting that ends that process is refused with the reason, and the others are loaded again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import OpsError
from opslib.inference.engine import EngineRequest
from opslib.ops.sweep.arms import Arm, arithmetic_of, check_candidate
from opslib.ops.sweep.finals import Finals, measure_finalists
from opslib.ops.sweep.heats import Track
from opslib.ops.sweep.record import SweepOptions
from opslib.ops.sweep.space import uses_tf32
from opslib.ops.sweep.trials import Trial
from opslib.timing.rounds import Deadline, Visit
from opslib.timing.station import Station, Workload

REFERENCE = 0
HEAT_ON_CPU, HEAT_ON_CARD = 24, 8


@dataclass(frozen=True)
class Course(Track[Arm]):
    """The track of one batch size: every session lies in `station`."""

    work: Workload
    station: Station
    on_card: bool
    _reference: list[NDArray[np.float32]] = field(default_factory=list, repr=False)

    @property
    def most_loaded(self) -> int:
        """On a card only so many sessions lie in memory."""
        return HEAT_ON_CARD if self.on_card else HEAT_ON_CPU

    @property
    def margin_pct(self) -> float:
        """As configured."""
        return self.config.sweep.margin_pct

    def where(self, arm: Arm) -> str:
        """Each batch size has races of its own."""
        return f" at batch {arm.batch_size}"

    def prepare(self, default: Arm) -> None:
        """Answer as the model as written does."""
        count = self.config.sweep.parity_images
        self._reference[:] = [answer_as_written(self.station, default.request, self.work, count)]

    def load(self, arm: Arm) -> Trial:
        """Load a session and hold its answers against those of the model as written."""
        trial, (reference,) = Trial(key=arm.key, kind="refused"), self._reference
        try:
            facts = self.station.load(arm.request, self.work, arm.row, try_out=False)
            trial = trial.ended("refused", provider=facts.provider, note=facts.note)
            answer = self.station.answer(len(reference), arm.row)
        except OpsError as error:
            self.unload(arm)
            return trial.ended("refused", reason=str(error))
        tf32 = uses_tf32(arm.options, facts.provider)
        arithmetic = arithmetic_of(facts.input_dtype, tf32=tf32)
        difference, reason = check_candidate(reference, answer, self.config.parity, arithmetic)
        if reason is None:
            return trial.ended("survived", max_abs_diff=difference)
        self.unload(arm)
        reason = f"it does not answer alike: {reason}"
        return trial.ended("refused", max_abs_diff=difference, reason=reason)

    def racer(self, arm: Arm) -> Visit:
        """Return the visits of a session in the station."""
        return self.station.racer(arm.row)

    def unload(self, arm: Arm) -> None:
        """Free the session and its threads."""
        self.station.unload(arm.row)

    def measure_finalists(self, arms: Sequence[Arm], deadline: Deadline) -> Finals:
        """Measure each in a process of its own."""
        return measure_finalists(
            [arm.request for arm in arms],
            self.work,
            deadline=deadline,
            rng=self.rng,
            margin_pct=self.margin_pct,
        )


def answer_as_written(
    station: Station, request: EngineRequest, work: Workload, count: int
) -> NDArray[np.float32]:
    """Return the probabilities `[N, C]` of the unoptimized graph on the CPU, the nearest to the
    model as written, for the first `count` images."""
    plain = SweepOptions(providers=("CPU",), graph_optimization_level="DISABLE_ALL")
    as_written = replace(request, providers=plain.providers, settings=plain.settings())
    station.load(as_written, work, REFERENCE, try_out=False)
    answer = station.answer(count, REFERENCE)
    station.unload(REFERENCE)
    return answer
