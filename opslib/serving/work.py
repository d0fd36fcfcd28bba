"""The bounded queue between the event loop and the threads that decode and classify."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from opslib.serving.failures import RefusalError

T = TypeVar("T")
Job = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]
_SMOOTHING = 0.1


class InferenceQueue:
    """`workers` jobs at a time, `waiting` more in line; beyond that a request is told to retry.

    Used from one event loop only, which is what makes its counting safe. It hands jobs to its own
    threads: an executor's futures cost as much as the whole of a small request's parsing.
    """

    def __init__(self, workers: int, waiting: int) -> None:
        self._workers = workers
        self._limit = workers + waiting
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._job_s = 0.0
        self.pending = 0
        self._threads = [
            threading.Thread(target=_work, args=(self._jobs,), name=f"inference-{index}")
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Refuse with 503 and `Retry-After` where the line is full.

        Raises:
            RefusalError: it is full.
        """
        if self.pending >= self._limit:
            wait_s = max(1, math.ceil(self.pending / self._workers * self._job_s))
            raise RefusalError(
                503,
                f"busy: {self.pending} requests are in line; try again in {wait_s} s",
                code="queue_full",
                headers={"Retry-After": str(wait_s)},
            )

    async def run(self, job: Callable[[], T]) -> T:
        """Return what `job` returns, run on a worker thread.

        Raises:
            RefusalError: the line is full.
        """
        self.check()
        self.pending += 1
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((job, future, loop))
        try:
            return await future
        finally:
            share = (time.perf_counter() - started) / max(1.0, self.pending / self._workers)
            self._job_s += _SMOOTHING * (share - self._job_s)
            self.pending -= 1

    def close(self) -> None:
        """Finish what was begun and end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while True:
        job = jobs.get()
        if job is None:
            return
        run, future, loop = job
        try:
            loop.call_soon_threadsafe(_settle, future, run(), None)
        except BaseException as error:
            loop.call_soon_threadsafe(_settle, future, None, error)
        del job, run, future


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
