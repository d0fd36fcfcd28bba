"""The bounded queue between the event loop and the threads that decode and classify."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from opslib.serving.failures import RefusalError

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
            threading.Thread(
                target=self._work, args=(inbox,), name=f"inference-{index}", daemon=True
            )
            for index, inbox in enumerate(self._inboxes)
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
