"""The parts of a running service, and what a request goes through: uploads are decoded, run and
ranked on one thread, on one generation."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from opslib.core.errors import OpsError
from opslib.core.host import usable_cpus
from opslib.core.lineage import git_sha
from opslib.inference.causes import find_hint
from opslib.inference.preprocess import load_preprocessor
from opslib.serving.decoding import UploadDecoder
from opslib.serving.failures import RefusalError
from opslib.serving.gate import GENERATION
from opslib.serving.generations import Generation, Generations
from opslib.serving.logs import ACCESS_LOG, CAUSED_OUTSIDE, AccessLog
from opslib.serving.reload import Reloader, since_ms
from opslib.serving.settings import MIB, ServiceSettings
from opslib.serving.standing import Standing
from opslib.serving.uploads import Upload, UploadLimits, read_uploads

T = TypeVar("T")
Job = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]
Inbox = SimpleQueue[Job | None]
_SMOOTHING = 0.1


class InferenceQueue:
    """`workers` jobs at a time, `waiting` more in line; beyond that a request is told to retry.

    Used from one event loop only, which is what makes its counting safe. It hands jobs to its own
    threads: an executor's futures cost as much as parsing a small request. The thread that was
    busy last works next, because its caches still hold the model.
    """

    def __init__(self, workers: int, waiting: int) -> None:
        self._workers = workers
        self._limit = workers + waiting
        self._job_s = 0.0
        self.pending = 0
        self._line: deque[Job] = deque()
        self._inboxes = [Inbox() for _ in range(workers)]
        self._idle = list(self._inboxes)
        # Daemons: a start that is refused or ended before it serves must not wait for them.
        self._threads = [
            threading.Thread(target=self._work, args=(one,), name=f"inference-{index}", daemon=True)
            for index, one in enumerate(self._inboxes)
        ]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Refuse with 503 and `Retry-After` where the line is full."""
        if self.pending >= self._limit:
            wait_s = max(1, math.ceil(self.pending / self._workers * self._job_s))
            problem = f"busy: {self.pending} requests are in line"
            raise RefusalError(503, problem, code="queue_full", retry_s=wait_s)

    async def run(self, job: Callable[[], T]) -> T:
        """Return what `job` returns, run on a worker thread; see `check`."""
        self.check()
        self.pending += 1
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        put = self._idle.pop().put if self._idle else self._line.append
        put((job, future, loop))
        try:
            return await future
        finally:
            share = (time.perf_counter() - started) / max(1.0, self.pending / self._workers)
            self._job_s += _SMOOTHING * (share - self._job_s)
            self.pending -= 1

    def close(self) -> None:
        """End the threads; what they have begun is finished first."""
        for inbox in self._inboxes:
            inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, inbox: Inbox) -> None:
        while (job := inbox.get()) is not None:
            run, future, loop = job
            try:
                result, error = run(), None
            except BaseException as raised:
                result, error = None, raised
            loop.call_soon_threadsafe(self._finish, inbox, future, result, error)
            del job, run, future, result, error

    def _finish(
        self, inbox: Inbox, future: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        """On the event loop: give the thread its next job, and the request its answer."""
        if self._line:
            inbox.put(self._line.popleft())
        else:
            self._idle.append(inbox)
        if not future.done():
            future.set_result(result) if error is None else future.set_exception(error)


_log = logging.getLogger(CAUSED_OUTSIDE)


@dataclass(frozen=True)
class Classified:
    """The predictions of one request (fields of `Prediction`), their one generation, and times."""

    generation: Generation
    predictions: list[dict[str, Any]]
    preprocess_ms: float
    inference_ms: float


class Service:
    """The parts of one running service, put together once."""

    def __init__(self, settings: ServiceSettings) -> None:
        config = settings.config
        self.settings = settings
        self.started = time.monotonic()
        self.git_sha = git_sha(config.code_root or config.root)
        secrets = (settings.api_key.decode(),)
        self.access_log = AccessLog(config.logs_dir / ACCESS_LOG, secrets)
        self.generations = Generations(
            capacity=config.reload.resident_models,
            min_free_bytes=config.reload.resident_min_free_mb * MIB,
        )
        self.standing = Standing(self.generations)
        preprocessor = load_preprocessor(config.preprocess.function, config.code_root)
        self.reloader = Reloader(settings, self.generations, preprocessor, self.standing)
        section = config.service
        self.queue = InferenceQueue(section.workers or usable_cpus(), section.queue)
        self.decoder = UploadDecoder(
            preprocessor,
            allowed_exts=settings.environment.allowed_exts,
            max_pixels=config.uploads.max_pixels,
            max_total_pixels=config.uploads.batch_max_pixels,
        )

    async def classify(self, request: Request, field: str, limits: UploadLimits) -> Classified:
        """Read, check and classify the images of a request."""
        self.queue.check()
        uploads = await read_uploads(request, field, limits)
        self.decoder.check(uploads)
        done = await self.queue.run(partial(classify, uploads, self.generations, self.decoder))
        request.scope["state"][GENERATION] = done.generation
        return done

    def close(self) -> None:
        """Finish what is under way and free the models."""
        self.standing.close()
        self.queue.close()
        self.generations.close()
        self.access_log.close()


def classify(
    uploads: Sequence[Upload], generations: Generations, decoder: UploadDecoder
) -> Classified:
    """Return a prediction for each upload, all from the generation current when work began.

    Raises:
        RefusalError: there is none, an upload is unfit, or a stage fails (500, with its name).
    """
    with generations.lease() as generation:
        model = generation.model
        started = time.perf_counter()
        with _stage("preprocess", generation):
            batch = decoder.decode(uploads, model.img_size)
        decoded, preprocess_ms = time.perf_counter(), since_ms(started)
        with _stage("inference", generation):
            probabilities = model.run(batch)
        _check_finite(probabilities, generation)
        inference_ms = since_ms(decoded)
        names = model.class_names
        best = probabilities.argmax(axis=-1).tolist()
        predictions = [
            {
                "class_id": index,
                "class_name": names[index] if index < len(names) else None,
                "confidence": round(float(row[index]), 6),
            }
            for index, row in zip(best, probabilities, strict=True)
        ]
    return Classified(generation, predictions, preprocess_ms, inference_ms)


@contextmanager
def _stage(name: str, generation: Generation) -> Iterator[None]:
    """Name the stage in whatever goes wrong that is not the upload's fault."""
    try:
        yield
    except RefusalError:
        raise
    except Exception as error:  # of foreign code
        told = isinstance(error, OpsError)
        problem = str(error) if told else f"{name} raised {type(error).__name__}; see api.err"
        fields = {"stage": name, **_name_model(generation)}
        _log.error("a request failed: %s", problem, exc_info=not told, extra={"fields": fields})
        extra = {"stage": name, "hint": find_hint(name, problem)}
        raise RefusalError(500, problem, code="stage_failed", extra=extra) from error


def _name_model(generation: Generation) -> dict[str, Any]:
    return {"generation": generation.number, "model_path": str(generation.model.path)}


def _check_finite(probabilities: NDArray[np.float32], generation: Generation) -> None:
    finite = np.isfinite(probabilities)
    if finite.all():
        return
    model, bad = generation.model, int((~finite).any(axis=-1).sum())
    tag = model.candidate.version_tag
    problem = f"{tag} answered {bad} of {len(probabilities)} images with a NaN"
    _log.error("%s; switch to another model", problem, extra={"fields": _name_model(generation)})
    raise RefusalError(500, problem, code="not_a_number")
