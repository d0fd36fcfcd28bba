"""What a station's process does: it holds loaded engines, each known by a number, and times them.

A visit of a race ends when the process is quiet again: the thread pool of an idle session spins on
for tens of milliseconds and would slow whoever is timed next, in this process or in another.
Waiting for it leaves every setting as it will be used, which stopping the spinning by option would
not.
"""

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ModelError, UnavailableError
from opslib.inference.engine import Engine, EngineFacts, EngineRequest, check_batch
from opslib.inference.opening import open_engine
from opslib.inference.postprocess import to_probabilities
from opslib.inference.preprocess import load_preprocessor
from opslib.timing.blocks import (
    MIN_RUNS,
    Block,
    Boundary,
    StagesMs,
    measure_block,
)
from opslib.timing.disturbance import is_disturbed, share_pct
from opslib.timing.related import Round, time_in_turn
from opslib.timing.rounds import VisitTimes, visit_arm
from opslib.timing.workers import peak_rss_bytes, reset_peak_rss

WARMUP_SHARE = 0.25
FEWEST_RUNS = 3
QUIET_STEP_S = 0.002
QUIET_SHARE = 0.15
QUIET_TIMEOUT_S = 0.15
VISIT_TRIES = 3


class FixedBatchError(UnavailableError):
    """The model takes batches of another size alone, on any host."""


class BadAnswerError(ModelError):
    """The model ran, and its answers are none: no numbers, or not one row an image."""


# When a call started, had decoded, had transformed and ended, in seconds.
Moments = tuple[float, float, float, float]


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
    `first_run_ms` is how long the engine took for its first answer, once it was loaded."""

    block: Block
    stages: StagesMs | None
    peak_rss_bytes: int | None
    first_run_ms: float | None


@dataclass(frozen=True)
class Leg:
    """Two loaded engines, by their numbers, that are timed in turn within one boundary, and the
    rounds known of them already."""

    engine: int
    reference: int
    boundary: Boundary
    known: tuple[Round, ...] = ()


@dataclass
class _Loaded:
    engine: Engine
    request: EngineRequest
    work: Workload
    batch: NDArray[np.float32]
    first_run_ms: float | None = None

    def run(self) -> NDArray[np.float32]:
        return self.engine.run(self.batch)


_loaded: dict[int, _Loaded] = {}
_peak_is_own = [False]


@contextmanager
def open_inference(request: EngineRequest, work: Workload) -> Iterator[Callable[[], object]]:
    """Yield one inference call of a freshly loaded engine, for an arm of a comparison."""
    loaded = _open(request, work)
    with loaded.engine:
        yield loaded.run


def describe(request: EngineRequest) -> EngineFacts:
    """Return what would be running, from a load without a workload."""
    with open_engine(request) as engine:
        return engine.facts


def load(
    number: int, request: EngineRequest, work: Workload, try_out: bool, like: int | None = None
) -> EngineFacts:
    """Load an engine in place of the one of that number; see `Station.load`."""
    unload(number)
    _peak_is_own[0] = reset_peak_rss()
    loaded = _open(request, work, None if like is None else _loaded.get(like))
    if try_out:
        started = time.perf_counter()
        answer = loaded.run()
        loaded.first_run_ms = 1000 * (time.perf_counter() - started)
        _check_shape(answer, request)
        if not np.isfinite(answer).all():
            raise BadAnswerError(f"{request.path.name} answers with values that are not finite")
    _loaded[number] = loaded
    gc.freeze()  # what is loaded is not gone through again before every block
    return loaded.engine.facts


def unload(number: int) -> None:
    """Free an engine and its threads, and with the last one the images that were kept."""
    if number in _loaded:
        gc.unfreeze()
        engine = _loaded.pop(number).engine
        if all(other.engine is not engine for other in _loaded.values()):
            engine.close()
    if not _loaded:
        _read_images.cache_clear()


def answer(number: int, count: int) -> NDArray[np.float32]:
    """Return the engine's probabilities `[N, C]` for the first `count` images."""
    loaded = _loaded[number]
    size = loaded.request.batch_size
    parts = []
    for start in range(0, count, size):
        parts.append(loaded.engine.run(_read_images(loaded.work, start, size)))
        _check_shape(parts[-1], loaded.request)
    return to_probabilities(np.concatenate(parts)[:count], loaded.engine.facts.postprocess)


def time_block(number: int, boundary: Boundary, seconds: float) -> TimedBlock:
    """Time an engine alone; a disturbed block is measured again, and the calmer one stays."""
    loaded = _loaded[number]
    moments: list[Moments] = []
    call = loaded.run if boundary == "inference" else _whole_call(loaded, moments)
    first_s = _time_second(call)
    warmup = max(1, min(10, int(WARMUP_SHARE * seconds / first_s)))
    min_runs = MIN_RUNS if MIN_RUNS * first_s <= 2 * seconds else FEWEST_RUNS
    measure = partial(measure_block, call, seconds=seconds, warmup=warmup, min_runs=min_runs)
    block = measure()
    kept = moments[-len(block.times_ms) :]
    if block.disturbed:
        again = measure()
        if (again.run_delay_pct or 0.0) < (block.run_delay_pct or 0.0):
            block, kept = again, moments[-len(again.times_ms) :]
    peak = peak_rss_bytes() if _peak_is_own[0] else None
    return TimedBlock(block, _summarize_stages(kept), peak, loaded.first_run_ms)


def visit(number: int, runs: int) -> VisitTimes:
    """Time a few runs of an engine."""
    return visit_arm(_loaded[number].run, runs)


def visit_calmly(number: int, runs: int) -> VisitTimes:
    """Time a visit that ends quietly; one that had to wait for a CPU is made again, the calmest of
    three stays."""
    tries: list[VisitTimes] = []
    while len(tries) < VISIT_TRIES:
        tries.append(visit(number, runs))
        _wait_until_quiet()
        if not is_disturbed(share_pct(tries[-1].run_delay_s, tries[-1].wall_s)):
            break
    return min(tries, key=lambda one: (one.run_delay_s or 0.0) / one.wall_s)


def relate(
    legs: Sequence[Leg], seconds: float, targets_pct: Sequence[float], fewest: int
) -> list[list[Round]]:
    """Time the two engines of each leg in turn; see `time_in_turn`."""
    pairs = [(_call(leg.engine, leg.boundary), _call(leg.reference, leg.boundary)) for leg in legs]
    return time_in_turn(
        pairs,
        [leg.known for leg in legs],
        seconds=seconds,
        targets_pct=targets_pct,
        fewest=fewest,
    )


def _wait_until_quiet() -> None:
    """Return once this process uses almost no processor time, at the latest after a while."""
    until = time.monotonic() + QUIET_TIMEOUT_S
    while time.monotonic() < until:
        used, started = time.process_time(), time.monotonic()
        time.sleep(QUIET_STEP_S)
        share = (time.process_time() - used) / (time.monotonic() - started)
        if share < QUIET_SHARE:
            return


def _open(request: EngineRequest, work: Workload, like: _Loaded | None = None) -> _Loaded:
    with ExitStack() as stack:
        engine = like.engine if like else stack.enter_context(open_engine(request))
        fixed = engine.facts.input_shape[0]
        if fixed not in (None, request.batch_size):
            raise FixedBatchError(f"the model's batch size is fixed at {fixed}")
        batch = _read_images(work, 0, request.batch_size)
        check_batch(batch, engine.facts)
        stack.pop_all()  # it stays open
        return _Loaded(engine, request, work, batch)


@lru_cache(maxsize=32)
def _read_images(work: Workload, start: int, count: int) -> NDArray[np.float32]:
    """The images from `start` on, ready for an engine; from the first again where they end."""
    names = list(itertools.islice(itertools.cycle(work.names), start, start + count))
    return load_preprocessor(work.preprocess, work.code_root).run_checked(names, work.img_size)


def _whole_call(loaded: _Loaded, moments: list[Moments]) -> Callable[[], object]:
    """One end-to-end call over the next images in turn; it notes when each stage ended."""
    names = itertools.cycle(loaded.work.names)
    count, size = loaded.request.batch_size, loaded.work.img_size
    clock, run = time.perf_counter, loaded.engine.run
    preprocessor = load_preprocessor(loaded.work.preprocess, loaded.work.code_root)
    split = preprocessor.split

    def call() -> None:
        paths = list(itertools.islice(names, count))
        started = clock()
        if split is None:
            decoded, batch = math.nan, preprocessor.run_checked(paths, size)
        else:
            images = split[0](paths, size)
            decoded = clock()
            batch = split[1](images, size)
        transformed = clock()
        run(batch)
        moments.append((started, decoded, transformed, clock()))

    return call


def _summarize_stages(moments: list[Moments]) -> StagesMs | None:
    if not moments:
        return None
    started, decoded, transformed, ended = 1000 * np.array(moments).T
    stages = (decoded - started, transformed - decoded, transformed - started, ended - transformed)
    decode, transform, whole, inference = (float(np.median(one)) for one in stages)
    if math.isnan(decode):  # foreign code cannot be split
        return StagesMs(decode=None, transform=None, preprocess=whole, inference=inference)
    return StagesMs(
        decode=decode, transform=transform, preprocess=decode + transform, inference=inference
    )


def _call(number: int, boundary: Boundary) -> Callable[[], object]:
    loaded = _loaded[number]
    return loaded.run if boundary == "inference" else _whole_call(loaded, [])


def _check_shape(answer: NDArray[np.float32], request: EngineRequest) -> None:
    if answer.ndim != 2 or len(answer) != request.batch_size:
        raise BadAnswerError(
            f"{request.path.name} answers {request.batch_size} images with {list(answer.shape)}; "
            "expected [N, classes]"
        )


def _time_second(call: Callable[[], object]) -> float:
    """Seconds of a second call."""
    call()
    started = time.perf_counter()
    call()
    return max(1e-7, time.perf_counter() - started)
