"""One fresh child process at a time: runs picklable functions, is never left behind.

A child keeps what it opened between calls, so an engine with its thread pool can live in it and be
timed there, and all of it is gone when the child ends.
"""

import ctypes
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from opslib.core.errors import DeadlineError, OpsError
from opslib.core.formatting import format_signal

P = ParamSpec("P")
T = TypeVar("T")

START_TIMEOUT_S = 60.0
_HIGH_WATER = "VmHWM:"


class MeasureError(OpsError):
    """A measurement could not be taken; the message says what was running and how it ended."""


class Worker:
    """A fresh child process for the length of a `with` block. `name`: what the child is for, as
    errors shall name it. `env`: environment variables set in the child before it imports anything
    heavy."""

    def __init__(self, name: str, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._env = dict(env or {})
        self._executor: ProcessPoolExecutor | None = None
        self._child: BaseProcess | None = None
        self._busy = False

    def __enter__(self) -> Self:
        self._executor = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_child,
            initargs=(self._env,),
        )
        others = set(multiprocessing.active_children())
        starting = self._executor.submit(os.getpid)
        self._child = next(iter(set(multiprocessing.active_children()) - others), None)
        self._await(starting, "starting", START_TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._end(kill=self._busy)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        if self._child is None or self._child.pid is None:
            raise MeasureError(f"{self.name}: the worker process is not running")
        return self._child.pid

    def call(self, function: Callable[..., T], *args: Any, timeout_s: float | None = None) -> T:
        """Return what the function returned in the child; its exception is raised here. Raises
        MeasureError: the child died, or the function cannot be sent to it; DeadlineError: the call
        took longer than `timeout_s`; the child has been killed."""
        if self._executor is None:
            raise MeasureError(f"{self.name}: the worker process is not running")
        _check_sendable(self.name, function, args)
        return self._await(self._executor.submit(function, *args), _describe(function), timeout_s)

    def _await(self, future: Future[T], what: str, timeout_s: float | None) -> T:
        self._busy = True
        try:
            return future.result(timeout_s)
        except BrokenProcessPool as broken:
            self._end(kill=True)
            raise MeasureError(
                f"{self.name}: the worker process {self._how_it_ended()} during {what}"
            ) from broken
        except TimeoutError:
            if future.done():  # the function itself raised a TimeoutError
                raise
            self._end(kill=True)
            raise DeadlineError(
                f"{self.name}: {what} did not finish within {timeout_s:g} s; its worker process "
                "was killed"
            ) from None
        finally:  # a signal may have ended the wait while the function still runs
            self._busy = not future.done()

    def _end(self, kill: bool) -> None:
        if self._executor is None:
            return
        executor, self._executor, self._busy = self._executor, None, False
        if kill and self._child is not None:
            self._child.kill()
        executor.shutdown(wait=True, cancel_futures=True)
        if self._child is not None:
            self._child.join()

    def _how_it_ended(self) -> str:
        code = None if self._child is None else self._child.exitcode
        if code is None:
            return "ended while it started"
        if code < 0:
            return f"was ended by {format_signal(-code)}"
        return f"exited with code {code}"


def peak_rss_bytes() -> int:
    """Largest resident memory of the calling process since it began or was last reset."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(_HIGH_WATER):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_rss() -> bool:
    """Start the peak of the calling process again from now; False where the kernel refuses. What
    the allocator keeps of freed memory is given back first, so that the next peak is its own."""
    with suppress(OSError, AttributeError):  # glibc alone has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _prepare_child(env: Mapping[str, str]) -> None:
    """Set the environment, leave Ctrl-C to the parent, and end when the parent has gone."""
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _check_sendable(name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    main = sys.modules.get("__main__")
    for item in (function, *args):
        item = getattr(item, "func", item)
        if getattr(item, "__module__", None) == "__main__" and not hasattr(main, "__file__"):
            raise MeasureError(
                f"{name}: {_describe(item)} is defined in a notebook or a prompt; a worker "
                "process can only run what it can import from a module"
            )
    try:
        pickle.dumps((function, args))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise MeasureError(
            f"{name}: {_describe(function)} cannot be sent to a worker process: {error}"
        ) from error


def _describe(item: Any) -> str:
    inner = getattr(item, "func", item)  # functools.partial
    return str(getattr(inner, "__qualname__", type(inner).__qualname__))
