"""The line of requests that wait for a worker, and the threads that take their share of it."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from opslib.serving.failures import RefusalError

R = TypeVar("R")
A = TypeVar("A")
Work = Callable[[Iterator[R]], Iterable[list[A | BaseException]]]
_SMOOTHING = 0.1


@dataclass(frozen=True)
class _Job(Generic[R, A]):
    """A request and where its answer goes."""

    request: R
    future: asyncio.Future[A]


_Inbox = SimpleQueue[_Job[R, A] | None]
_Outcome = tuple[_Job[R, A], A | BaseException]


class InferenceQueue(Generic[R, A]):
    """`workers` requests at a time, `waiting` more in line; beyond that one is told to retry.

    A worker that becomes free gives `work` an iterator over requests: the first in line, then, one
    by one as it asks for them, its share of those that wait at that moment. `work` never waits for
    more. It yields answers or errors in the order of the requests, as many at a time as it has.

    `run` and `check` are used from one event loop only, which is what makes their counting safe.
    The threads are its own: an executor's futures cost as much as parsing a small request. The one
    that was busy last works next, because its caches still hold the model.
    """

    def __init__(self, work: Work[R, A], workers: int, waiting: int) -> None:
        self._answer = work
        self._workers = workers
        self._limit = workers + waiting
        self._job_s = 0.0
        self.pending = 0
        self._lock = threading.Lock()  # of the line and of who is idle
        self._line: deque[_Job[R, A]] = deque()
        self._inboxes = [_Inbox[R, A]() for _ in range(workers)]
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

    async def run(self, request: R) -> A:
        """Return the answer to `request`, or raise its error; see `check`."""
        self.check()
        self.pending += 1
        started = time.perf_counter()
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._put(_Job(request, future))
        try:
            return await future
        finally:
            share = (time.perf_counter() - started) / max(1.0, self.pending / self._workers)
            self._job_s += _SMOOTHING * (share - self._job_s)
            self.pending -= 1
            del future  # its error holds this frame, which holds the request

    def close(self) -> None:
        """End the threads; what they have begun is finished first."""
        with self._lock:
            self._line.clear()
        for inbox in self._inboxes:
            inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _put(self, job: _Job[R, A]) -> None:
        with self._lock:
            if not self._idle:
                self._line.append(job)
                return
            inbox = self._idle.pop()
        inbox.put(job)

    def _take(self, inbox: _Inbox[R, A] | None = None) -> _Job[R, A] | None:
        """The first in line; where nobody waits, the worker with this `inbox` is idle."""
        with self._lock:
            if self._line:
                return self._line.popleft()
            if inbox is not None:
                self._idle.append(inbox)
            return None

    def _work(self, inbox: _Inbox[R, A]) -> None:
        while (job := inbox.get()) is not None:
            while job is not None:
                self._serve(job)
                job = self._take(inbox)

    def _serve(self, first: _Job[R, A]) -> None:
        """Answer a request, and what else of its share `work` asks for."""
        taken = deque[_Job[R, A]]()
        error: BaseException = RuntimeError("a request was left without an answer")
        try:
            for answers in self._answer(self._share(first, taken)):
                _post([(taken.popleft(), one) for one in answers])
        except BaseException as raised:
            error = raised
        left: list[_Outcome[R, A]] = [(job, error) for job in taken]
        _post(left)

    def _share(self, first: _Job[R, A], taken: deque[_Job[R, A]]) -> Iterator[R]:
        """Yield the request of `first` and of those that wait behind it, in equal shares for all
        workers; who does not wait any more is left out."""
        job: _Job[R, A] | None = first
        left = math.ceil((1 + len(self._line)) / self._workers)
        while job is not None:
            if not job.future.cancelled():
                taken.append(job)
                yield job.request
                left -= 1
            job = self._take() if left > 0 else None


def _post(done: list[_Outcome[R, A]]) -> None:
    """Hand answers to the event loop, which is woken once for all of them."""
    if done:
        done[0][0].future.get_loop().call_soon_threadsafe(_settle, done)


def _settle(done: list[_Outcome[R, A]]) -> None:
    for job, outcome in done:
        if job.future.done():
            continue
        if isinstance(outcome, BaseException):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
