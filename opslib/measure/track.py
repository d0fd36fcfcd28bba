"""A track: one worker process with several loaded engines, visited one at a time.

A visit ends when the process is quiet again: the thread pool of an idle session spins on for tens
of milliseconds and would slow whoever is timed next, in this process or in another. Waiting for it
leaves every setting as it will be used, which stopping the spinning by option would not.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import OpsError, UnavailableError
from opslib.core.host import usable_cpus
from opslib.inference.engine import Engine, EngineFacts, EngineRequest, check_batch
from opslib.inference.opening import open_engine
from opslib.inference.optimized_graph import digest_optimized_graph
from opslib.inference.preprocess import load_preprocessor
from opslib.measure.disturbance import (
    is_disturbed,
    read_thread_delays_s,
    share_pct,
    worst_growth_s,
)
from opslib.measure.rounds import Visit, VisitTimes, visit_arm
from opslib.measure.station import Workload
from opslib.measure.sweep_space import SweepHost, find_sweep_host
from opslib.measure.workers import Worker

T = TypeVar("T")

CALL_TIMEOUT_S = 600.0
QUIET_STEP_S = 0.002
QUIET_SHARE = 0.15
QUIET_TIMEOUT_S = 0.15
VISIT_TRIES = 3
_TASKS = Path("/proc/self/task")


class Track:
    """A worker process for the length of a `with` block; engines are known by a number."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = ExitStack()
        self._worker: Worker | None = None

    def __enter__(self) -> Self:
        self._worker = self._stack.enter_context(Worker(self.name))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def describe(self, request: EngineRequest) -> EngineFacts:
        """Return what would be running, from a load without images."""
        return self._call(_describe, request)

    def describe_host(self, request: EngineRequest) -> SweepHost:
        """Return what this host can run; ask before anything is loaded."""
        return self._call(_describe_host, request)

    def digest_graph(self, request: EngineRequest) -> str | None:
        """Return the digest of the optimized model; see `digest_optimized_graph`."""
        return self._call(digest_optimized_graph, request)

    def load(self, number: int, request: EngineRequest, work: Workload) -> EngineFacts:
        """Load an engine beside those already loaded."""
        return self._call(_load, number, request, work)

    def answer(self, number: int, count: int) -> NDArray[np.float32]:
        """Return an engine's logits `[count, classes]` of the first images, in its batches."""
        return self._call(_answer, number, count)

    def visit(self, number: int) -> Visit:
        """Return the visits of one engine."""
        return lambda runs: self._call(_visit, number, runs)

    def unload(self, number: int) -> None:
        """Free one engine and its threads."""
        self._call(_unload, number)

    def _call(self, function: Callable[..., T], *args: object) -> T:
        if self._worker is None:
            raise OpsError(f"{self.name}: the track is not open")
        return self._worker.call(function, *args, timeout_s=CALL_TIMEOUT_S)


class _Entry:
    """One loaded engine with the images that it answers and is timed on."""

    def __init__(self, engine: Engine, request: EngineRequest, images: NDArray[np.float32]) -> None:
        self.engine, self.size, self._images = engine, request.batch_size, images
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
        _images[work] = np.asarray(preprocessor.run(work.names, work.img_size))
    return _images[work]


def _answer(number: int, count: int) -> NDArray[np.float32]:
    entry = _entries[number]
    rounded = -(-count // entry.size) * entry.size
    images = entry.images(rounded)
    try:
        parts = [
            entry.engine.run(images[start : start + entry.size])
            for start in range(0, rounded, entry.size)
        ]
    except OpsError:
        raise
    except Exception as error:  # engines raise classes of their own, some of them not picklable
        reason = " ".join(str(error).split())[:300]
        raise UnavailableError(f"batch {entry.size} does not run: {reason}") from None
    return np.concatenate(parts)[:count]


def _visit(number: int, runs: int) -> VisitTimes:
    """Time a visit; one that had to wait for a CPU is made again, the calmest of three stays."""
    call = partial(_run_once, _entries[number])
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


def _describe_host(request: EngineRequest) -> SweepHost:
    """Count the threads of a session that is told none against one that is told a single one."""
    alone, automatic = (_count_threads(request, threads) for threads in (1, 0))
    return find_sweep_host(1 + max(0, automatic - alone), usable_cpus())


def _count_threads(request: EngineRequest, threads: int) -> int:
    settings = replace(request.settings, intra_op_num_threads=threads)
    with open_engine(replace(request, providers=("CPU",), settings=settings)):
        return len(list(_TASKS.iterdir()))
