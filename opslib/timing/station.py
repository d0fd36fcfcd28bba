"""A station: loaded engines in a process of their own, for absolute blocks, pairs and races.

Torch's and ONNX Runtime's thread pools never live side by side: each has a station of its own, and
a station without work sleeps. A setting may end the whole process (ONNX Runtime aborts, memory runs
out): then the engine that was at work is lost, and the next call opens a new process with the
others.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import DeadlineError, OpsError
from opslib.inference.engine import EngineFacts, EngineRequest
from opslib.timing import station_process as process
from opslib.timing.blocks import Boundary
from opslib.timing.paired import Comparison, compare_arms
from opslib.timing.related import Round
from opslib.timing.rounds import Arm, Visit, VisitTimes
from opslib.timing.station_process import BadAnswerError, FixedBatchError, Leg, TimedBlock, Workload
from opslib.timing.workers import MeasureError, Worker

__all__ = [
    "BadAnswerError",
    "FixedBatchError",
    "Leg",
    "RacerError",
    "Side",
    "Station",
    "TimedBlock",
    "Workload",
    "compare_stations",
]

T = TypeVar("T")

CALL_TIMEOUT_S = 600.0


class RacerError(OpsError):
    """The engine `number` of a race does not load, does not run or has ended its process. The exit
    code is that of the error behind it."""

    def __init__(self, number: int, cause: OpsError) -> None:
        super().__init__(str(cause))
        self.number = number
        self.exit_code = cause.exit_code


class Station:
    """A worker process with any number of engines; one that stands alone has the number 0. A
    process that died is replaced at the next call and the engines that were not at work are loaded
    again; one that cannot be raises its error when it is asked for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = ExitStack()
        self._worker: Worker | None = None
        self._loaded: dict[int, tuple[EngineRequest, Workload, bool, int | None]] = {}
        self._lost: dict[int, OpsError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def describe(self, request: EngineRequest) -> EngineFacts:
        """Return what would be running, from a load without a workload."""
        return self.call(process.describe, request)

    def load(
        self,
        request: EngineRequest,
        work: Workload,
        number: int = 0,
        *,
        try_out: bool = True,
        like: int | None = None,
    ) -> EngineFacts:
        """Load an engine, replacing that of the same number, and return what is really running.
        `try_out`: run it once, and refuse what is no classifier's answer: another shape than [N,
        classes], or not finite. `like`: the number of one that differs in nothing but its batch
        size; both are then one engine, which is loaded once."""
        self._loaded.pop(number, None)
        self._lost.pop(number, None)
        facts = self._ask(process.load, number, request, work, try_out, like)
        self._loaded[number] = (request, work, try_out, like)
        return facts

    def answer(self, count: int, number: int = 0) -> NDArray[np.float32]:
        """Return an engine's probabilities `[N, C]` for the first `count` images of its workload,
        from the first again where there are fewer."""
        return self._ask(process.answer, number, count)

    def time_block(self, boundary: Boundary, seconds: float) -> TimedBlock:
        """Time the loaded engine alone for `seconds`."""
        return self._ask(process.time_block, 0, boundary, seconds)

    def relate(
        self, legs: Sequence[Leg], seconds: float, targets_pct: Sequence[float], fewest: int
    ) -> list[list[Round]]:
        """Time the two engines of each leg in turn, until their ratio is known to the targets from
        at least `fewest` rounds, or `seconds` are over; return the further rounds of each."""
        return self.call(process.relate, legs, seconds, targets_pct, fewest)

    def visit(self, runs: int) -> VisitTimes:
        """Time a few inference runs of the loaded engine, for a paired comparison."""
        return self._ask(process.visit, 0, runs)

    def racer(self, number: int) -> Visit:
        """Return the visits of one engine of a race; a visit that fails raises `RacerError`."""

        def visit(runs: int) -> VisitTimes:
            try:
                return self._ask(process.visit_calmly, number, runs)
            except OpsError as error:
                raise RacerError(number, error) from error

        return visit

    def unload(self, number: int = 0) -> None:
        """Free an engine and its threads; one that is lost is only forgotten."""
        self._loaded.pop(number, None)
        self._lost.pop(number, None)
        if self._worker is not None:
            with suppress(MeasureError, DeadlineError):  # the engine is gone with its process
                self._send(process.unload, number)

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Return what a picklable function returns in the station's process."""
        self._revive()
        return self._send(function, *args)

    def _ask(self, function: Callable[..., T], number: int, *args: object) -> T:
        self._revive()
        if number in self._lost:
            raise self._lost[number]
        try:
            return self._send(function, number, *args)
        except OpsError as error:
            if self._worker is None:
                self._lose(number, error)
            raise

    def _send(self, function: Callable[..., T], *args: object) -> T:
        if self._worker is None:
            self._worker = self._stack.enter_context(Worker(self.name))
        try:
            return self._worker.call(function, *args, timeout_s=CALL_TIMEOUT_S)
        except (MeasureError, DeadlineError):
            self._worker = None
            self._stack.close()
            raise

    def _revive(self) -> None:
        """Replace a dead process; whoever ends the new one as well is lost too."""
        while self._worker is None and self._loaded:
            for number, given in list(self._loaded.items()):
                try:
                    self._send(process.load, number, *given)
                except OpsError as error:
                    self._lose(number, error)
                if self._worker is None:
                    break

    def _lose(self, number: int, error: OpsError) -> None:
        self._loaded.pop(number, None)
        self._lost[number] = error


@dataclass(frozen=True)
class Side:
    """One side of a comparison: what it is called, what is loaded, and where."""

    label: str
    request: EngineRequest
    station: Station

    def at_rest(self) -> EngineRequest:
        """Return the request without threads that spin between calls and slow the other side."""
        settings = replace(self.request.settings, force_spinning_stop=True)
        return replace(self.request, settings=settings)


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

    @contextmanager
    def open_stations(_arms: Sequence[Arm], _rng: np.random.Generator) -> Iterator[list[Visit]]:
        try:
            for side in sides:
                side.station.load(side.at_rest(), work)
            yield [side.station.visit for side in sides]
        finally:
            for side in sides:
                side.station.unload()

    return compare_arms(
        *(Arm(side.label, partial(process.open_inference, side.at_rest(), work)) for side in sides),
        open_visits=open_stations,
        min_effect_pct=min_effect_pct,
        budget_s=budget_s,
        seed=seed,
    )
