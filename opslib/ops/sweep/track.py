"""A track: one worker process with several loaded engines, visited one at a time.

A visit ends when the process is quiet again: the thread pool of an idle session spins on for tens
of milliseconds and would slow whoever is timed next, in this process or in another. Waiting for it
leaves every setting as it will be used, which stopping the spinning by option would not.

A setting may end the whole process: ONNX Runtime aborts, memory runs out. Then the engine that was
at work is lost, and the next call opens a new process with the others.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import DeadlineError, OpsError, UnavailableError
from opslib.inference.engine import Engine, EngineFacts, EngineRequest, check_batch
from opslib.inference.opening import open_engine
from opslib.inference.optimized_graph import digest_optimized_graph
from opslib.inference.postprocess import to_probabilities
from opslib.inference.preprocess import load_preprocessor
from opslib.ops.sweep.space import SweepHost, find_sweep_host
from opslib.timing.disturbance import is_disturbed, read_thread_delays_s, share_pct, worst_growth_s
from opslib.timing.rounds import Visit, VisitTimes, visit_arm
from opslib.timing.station import Workload, check_shape
from opslib.timing.workers import MeasureError, Worker

T = TypeVar("T")

CALL_TIMEOUT_S = 600.0
QUIET_STEP_S = 0.002
QUIET_SHARE = 0.15
QUIET_TIMEOUT_S = 0.15
VISIT_TRIES = 3


class TrackedEngineError(OpsError):
    """An engine of a track does not load, does not run or has ended the process; `number` is it.

    The exit code is that of the error behind it.
    """

    def __init__(self, number: int, cause: OpsError) -> None:
        super().__init__(str(cause))
        self.number = number
        self.exit_code = cause.exit_code


class Track:
    """A worker process for the length of a `with` block; engines are known by a number.

    A process that died is replaced at the next call and the engines that were not at work are
    loaded again; one that cannot be raises its `TrackedEngineError` when it is asked for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = ExitStack()
        self._worker: Worker | None = None
        self._loaded: dict[int, tuple[EngineRequest, Workload]] = {}
        self._lost: dict[int, OpsError] = {}
        self._open = False

    def __enter__(self) -> Self:
        self._worker = self._stack.enter_context(Worker(self.name))
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._stack.close()

    def describe(self, request: EngineRequest) -> EngineFacts:
        """Return what would be running, from a load without images."""
        return self._call(_describe, request)

    def describe_host(self) -> SweepHost:
        """Return what this host can run; ask before anything is loaded."""
        return self._call(find_sweep_host)

    def digest_graph(self, request: EngineRequest) -> str | None:
        """Return the digest of the optimized model; see `digest_optimized_graph`.

        None, too, where optimizing it ended the process.
        """
        try:
            return self._call(digest_optimized_graph, request)
        except (MeasureError, DeadlineError):
            return None

    def load(self, number: int, request: EngineRequest, work: Workload) -> EngineFacts:
        """Load an engine beside those already loaded.

        Raises:
            TrackedEngineError: it cannot be loaded, or the process ended over it.
        """
        self._loaded.pop(number, None)
        self._lost.pop(number, None)
        facts = self._ask(number, _load, number, request, work)
        self._loaded[number] = (request, work)
        return facts

    def answer(self, number: int, count: int) -> NDArray[np.float32]:
        """Return an engine's probabilities `[count, classes]` for the first images, in its batches.

        Raises:
            TrackedEngineError: it does not run, or the process ended over it.
        """
        return self._ask(number, _answer, number, count)

    def visit(self, number: int) -> Visit:
        """Return the visits of one engine; a visit raises `TrackedEngineError` as `answer` does."""
        return lambda runs: self._ask(number, _visit, number, runs)

    def unload(self, number: int) -> None:
        """Free one engine and its threads; one that is lost is only forgotten."""
        self._loaded.pop(number, None)
        self._lost.pop(number, None)
        if self._worker is not None:
            with suppress(MeasureError, DeadlineError):  # the engine is gone with its process
                self._call(_unload, number)

    def _ask(self, number: int, function: Callable[..., T], *args: object) -> T:
        try:
            self._revive()
            if number in self._lost:
                raise self._lost[number]
            return self._call(function, *args)
        except OpsError as error:
            if self._worker is None:
                self._lose(number, error)
            raise TrackedEngineError(number, error) from error

    def _call(self, function: Callable[..., T], *args: object) -> T:
        self._revive()
        if self._worker is None:
            raise OpsError(f"{self.name}: the track is not open")
        try:
            return self._worker.call(function, *args, timeout_s=CALL_TIMEOUT_S)
        except (MeasureError, DeadlineError):
            self._worker = None
            self._stack.close()
            raise

    def _revive(self) -> None:
        """Replace a dead process; whoever ends the new one as well is lost too."""
        while self._open and self._worker is None:
            self._worker = self._stack.enter_context(Worker(self.name))
            for number, (request, work) in list(self._loaded.items()):
                try:
                    self._call(_load, number, request, work)
                except OpsError as error:
                    self._lose(number, error)
                if self._worker is None:
                    break

    def _lose(self, number: int, error: OpsError) -> None:
        self._loaded.pop(number, None)
        self._lost[number] = error


class _Entry:
    """One loaded engine with the images that it answers and is timed on."""

    def __init__(self, engine: Engine, request: EngineRequest, images: NDArray[np.float32]) -> None:
        self.engine, self.request, self._images = engine, request, images
        self.size = request.batch_size
        self.batch = self.images(request.batch_size)

    def images(self, count: int) -> NDArray[np.float32]:
        """Return the first images, from the start again where there are fewer."""
        order = list(itertools.islice(itertools.cycle(range(len(self._images))), count))
        return np.ascontiguousarray(self._images[order])


_entries: dict[int, _Entry] = {}
_images: dict[Workload, NDArray[np.float32]] = {}


def _load(number: int, request: EngineRequest, work: Workload) -> EngineFacts:
    _unload(number)
    engine = open_engine(request)
    fixed = engine.facts.input_shape[0]
    if fixed is not None and fixed != request.batch_size:
        engine.close()
        raise UnavailableError(f"the model's batch size is fixed at {fixed}")
    _entries[number] = _Entry(engine, request, _read_images(work))
    check_batch(_entries[number].batch, engine.facts)
    return engine.facts


def _read_images(work: Workload) -> NDArray[np.float32]:
    if work not in _images:
        preprocessor = load_preprocessor(work.preprocess, work.code_root)
        _images[work] = np.asarray(preprocessor.run_checked(work.names, work.img_size))
    return _images[work]


def _answer(number: int, count: int) -> NDArray[np.float32]:
    entry = _entries[number]
    rounded = -(-count // entry.size) * entry.size
    images = entry.images(rounded)
    parts = [
        entry.engine.run(images[start : start + entry.size])
        for start in range(0, rounded, entry.size)
    ]
    check_shape(parts[0], entry.request)
    return to_probabilities(np.concatenate(parts)[:count], entry.engine.facts.postprocess)


def _visit(number: int, runs: int) -> VisitTimes:
    """Time a visit; one that had to wait for a CPU is made again, the calmest of three stays."""
    entry = _entries[number]
    call = partial(_run_once, entry)
    tries: list[VisitTimes] = []
    while len(tries) < VISIT_TRIES:
        tries.append(_visit_once(call, runs))
        if not is_disturbed(share_pct(tries[-1].run_delay_s, tries[-1].wall_s)):
            break
    return min(tries, key=lambda one: (one.run_delay_s or 0.0) / one.wall_s)


def _visit_once(call: Callable[[], object], runs: int) -> VisitTimes:
    before = read_thread_delays_s()
    seen = visit_arm(call, runs)
    delay_s = worst_growth_s(before, read_thread_delays_s())
    _wait_until_quiet()
    return replace(seen, run_delay_s=delay_s)


def _run_once(entry: _Entry) -> object:
    return entry.engine.run(entry.batch)


def _wait_until_quiet() -> None:
    """Return once this process uses almost no processor time, at the latest after a while."""
    until = time.monotonic() + QUIET_TIMEOUT_S
    while time.monotonic() < until:
        used, started = time.process_time(), time.monotonic()
        time.sleep(QUIET_STEP_S)
        share = (time.process_time() - used) / (time.monotonic() - started)
        if share < QUIET_SHARE:
            return


def _unload(number: int) -> None:
    entry = _entries.pop(number, None)
    if entry is not None:
        entry.engine.close()


def _describe(request: EngineRequest) -> EngineFacts:
    with open_engine(request) as engine:
        return engine.facts
