"""A station: one engine in a process of its own, loaded, timed and unloaded on command.

Torch's and ONNX Runtime's thread pools never live side by side: each engine has its own station,
and a station without work sleeps. The same station serves absolute blocks and paired visits.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import DeadlineError, ModelError, UnavailableError
from opslib.inference.engine import Engine, EngineFacts, EngineRequest, check_batch
from opslib.inference.opening import open_engine
from opslib.inference.postprocess import to_probabilities
from opslib.inference.preprocess import Preprocessor, load_preprocessor
from opslib.timing.blocks import MIN_RUNS, Block, measure_block
from opslib.timing.boundary import Boundary, StagesMs
from opslib.timing.rounds import VisitTimes, visit_arm
from opslib.timing.workers import MeasureError, Worker, peak_rss_bytes, reset_peak_rss

T = TypeVar("T")

CALL_TIMEOUT_S = 600.0
WARMUP_SHARE = 0.25
FEWEST_RUNS = 3


@dataclass(frozen=True)
class Workload:
    """Which images, through which preprocessing, at which size; picklable."""

    names: tuple[str, ...]
    img_size: int
    preprocess: str
    code_root: Path | None = None


@dataclass(frozen=True)
class TimedBlock:
    """One block with what was seen beside it; `stages` only within the end-to-end boundary.

    `first_run_ms` is how long the engine took for its first answer, once it was loaded.
    """

    block: Block
    stages: StagesMs | None
    peak_rss_bytes: int | None
    first_run_ms: float


class Station:
    """A worker process that holds at most one engine at a time; a dead one is replaced."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = ExitStack()
        self._worker: Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def describe(self, request: EngineRequest) -> EngineFacts:
        """Return what would be running, from a load without a workload."""
        return self._call(_describe, request)

    def load(self, request: EngineRequest, work: Workload) -> EngineFacts:
        """Load the engine, replacing the one loaded before, and return what is really running."""
        return self._call(_load, request, work)

    def answer(self, names: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the loaded engine's probabilities `[N, C]` for image files."""
        return self._call(_answer, names)

    def time_block(self, boundary: Boundary, seconds: float) -> TimedBlock:
        """Time the loaded engine alone for `seconds`."""
        return self._call(_time_block, boundary, seconds)

    def visit(self, runs: int) -> VisitTimes:
        """Time a few inference runs of the loaded engine, for a paired comparison."""
        return self._call(_visit, runs)

    def unload(self) -> None:
        """Free the loaded engine and its threads."""
        self._call(_unload)

    def _call(self, function: Callable[..., T], *args: object) -> T:
        if self._worker is None:
            self._worker = self._stack.enter_context(Worker(self.name))
        try:
            return self._worker.call(function, *args, timeout_s=CALL_TIMEOUT_S)
        except (MeasureError, DeadlineError):
            self._worker = None
            self._stack.close()
            raise


@contextmanager
def open_inference(request: EngineRequest, work: Workload) -> Iterator[Callable[[], object]]:
    """Yield one inference call of a freshly loaded engine, for an arm of a comparison."""
    with open_engine(request) as engine:
        batch = _make_batch(
            engine, request, work, load_preprocessor(work.preprocess, work.code_root)
        )
        yield lambda: engine.run(batch)


@dataclass
class _Loaded:
    engine: Engine
    request: EngineRequest
    work: Workload
    preprocessor: Preprocessor
    batch: NDArray[np.float32]
    first_run_ms: float


_loaded: list[_Loaded] = []
_peak_is_own = [False]


def _describe(request: EngineRequest) -> EngineFacts:
    with open_engine(request) as engine:
        return engine.facts


def _load(request: EngineRequest, work: Workload) -> EngineFacts:
    _unload()
    _peak_is_own[0] = reset_peak_rss()
    preprocessor = load_preprocessor(work.preprocess, work.code_root)
    engine = open_engine(request)
    batch = _make_batch(engine, request, work, preprocessor)
    started = time.perf_counter()
    answer = engine.run(batch)
    first_run_ms = 1000 * (time.perf_counter() - started)
    _check_answer(answer, request)
    _loaded.append(_Loaded(engine, request, work, preprocessor, batch, first_run_ms))
    return engine.facts


def _unload() -> None:
    while _loaded:
        _loaded.pop().engine.close()


def _answer(names: tuple[str, ...]) -> NDArray[np.float32]:
    loaded = _loaded[-1]
    size = loaded.request.batch_size
    padded = names + names[: -len(names) % size]
    parts = []
    for start in range(0, len(padded), size):
        chunk = loaded.preprocessor.run_checked(padded[start : start + size], loaded.work.img_size)
        parts.append(loaded.engine.run(chunk))
    answers = np.concatenate(parts)[: len(names)]
    return to_probabilities(answers, loaded.engine.facts.postprocess)


def _time_block(boundary: Boundary, seconds: float) -> TimedBlock:
    loaded = _loaded[-1]
    stages: list[tuple[float, float, float]] = []
    call = _inference_call(loaded) if boundary == "inference" else _whole_call(loaded, stages)
    first_s = _time_second(call)
    warmup = max(1, min(10, int(WARMUP_SHARE * seconds / first_s)))
    min_runs = MIN_RUNS if MIN_RUNS * first_s <= 2 * seconds else FEWEST_RUNS
    measure = partial(measure_block, call, seconds=seconds, warmup=warmup, min_runs=min_runs)
    block = measure()
    kept = stages[-len(block.times_ms) :]
    if block.disturbed:
        again = measure()
        if (again.run_delay_pct or 0.0) < (block.run_delay_pct or 0.0):
            block, kept = again, stages[-len(again.times_ms) :]
    peak = peak_rss_bytes() if _peak_is_own[0] else None
    return TimedBlock(block, _summarize_stages(loaded, kept), peak, loaded.first_run_ms)


def _visit(runs: int) -> VisitTimes:
    return visit_arm(_inference_call(_loaded[-1]), runs)


def _inference_call(loaded: _Loaded) -> Callable[[], object]:
    return lambda: loaded.engine.run(loaded.batch)


def _whole_call(loaded: _Loaded, stages: list[tuple[float, float, float]]) -> Callable[[], object]:
    """One end-to-end call over the next images in turn; it notes when each stage ended."""
    names = itertools.cycle(loaded.work.names)
    count, size = loaded.request.batch_size, loaded.work.img_size
    clock, run, split = time.perf_counter, loaded.engine.run, loaded.preprocessor.split

    def call_split() -> None:
        paths = list(itertools.islice(names, count))
        started = clock()
        images = decode(paths, size)
        decoded = clock()
        batch = transform(images, size)
        transformed = clock()
        run(batch)
        stages.append((decoded - started, transformed - decoded, clock() - transformed))

    def call_whole() -> None:
        paths = list(itertools.islice(names, count))
        started = clock()
        batch = loaded.preprocessor.run_checked(paths, size)
        transformed = clock()
        run(batch)
        stages.append((0.0, transformed - started, clock() - transformed))

    if split is None:
        return call_whole
    decode, transform = split
    return call_split


def _summarize_stages(loaded: _Loaded, stages: list[tuple[float, float, float]]) -> StagesMs | None:
    if not stages:
        return None
    decode, transform, inference = (1000 * np.median(np.array(stages), axis=0)).tolist()
    whole = loaded.preprocessor.split is None
    return StagesMs(
        decode=None if whole else decode,
        transform=None if whole else transform,
        preprocess=decode + transform,
        inference=inference,
    )


def _make_batch(
    engine: Engine, request: EngineRequest, work: Workload, preprocessor: Preprocessor
) -> NDArray[np.float32]:
    fixed = engine.facts.input_shape[0]
    if fixed is not None and fixed != request.batch_size:
        engine.close()
        raise UnavailableError(f"the model's batch size is fixed at {fixed}")
    names = list(itertools.islice(itertools.cycle(work.names), request.batch_size))
    batch = preprocessor.run_checked(names, work.img_size)
    check_batch(batch, engine.facts)
    return batch


def check_shape(answer: NDArray[np.float32], request: EngineRequest) -> None:
    """Refuse an answer of another shape than [N, classes].

    Raises:
        ModelError: the message names the model and the shape.
    """
    if answer.ndim != 2 or len(answer) != request.batch_size:
        raise ModelError(
            f"{request.path.name} answers {request.batch_size} images with {list(answer.shape)}; "
            "expected [N, classes]"
        )


def _check_answer(answer: NDArray[np.float32], request: EngineRequest) -> None:
    """Refuse what is no classifier's answer: another shape than [N, classes], or not finite."""
    check_shape(answer, request)
    if not np.isfinite(answer).all():
        raise ModelError(f"{request.path.name} answers with values that are not finite")


def _time_second(call: Callable[[], object]) -> float:
    """Seconds of a second call."""
    call()
    started = time.perf_counter()
    call()
    return max(1e-7, time.perf_counter() - started)
