"""Waiting for slow things, and for none longer than a deadline."""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run_within(jobs: Mapping[str, Callable[[], T]], timeout_s: float) -> dict[str, T]:
    """Run all `jobs` at the same time and return what those that ended in time returned.

    The deadline counts from the beginning and holds for whatever they do: resolving a name, or
    reading from a server that sends a byte now and then. A job that is late is left to itself, in
    a thread that does not keep the process alive. Jobs are expected to raise nothing.
    """
    answers: queue.SimpleQueue[tuple[str, T]] = queue.SimpleQueue()

    def run(name: str, job: Callable[[], T]) -> None:
        answers.put((name, job()))

    give_up = time.monotonic() + timeout_s
    for name, job in jobs.items():
        threading.Thread(target=run, args=(name, job), daemon=True).start()
    found: dict[str, T] = {}
    while len(found) < len(jobs):
        try:
            name, result = answers.get(timeout=max(give_up - time.monotonic(), 0.001))
        except queue.Empty:
            break
        found[name] = result
    return found


class NotEndedError(subprocess.TimeoutExpired):
    """A command was late, and goes on: it is another account's, as behind `sudo`, or waits for a
    disk that does not answer."""


def run_or_end(
    command: Sequence[str], timeout_s: float | None, grace_s: float, **options: Any
) -> int:
    """Run a command in a session of its own and return how it ended; where it is late, or the wait
    itself is ended, all of its session is ended first, by SIGKILL after `grace_s`. Raises `OSError`
    where it cannot be started; `subprocess.TimeoutExpired` where it was late, a `NotEndedError`
    where it could not be ended."""
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nothing, start_new_session=True, **options)
    try:
        return process.wait(timeout_s)
    except BaseException as error:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):  # gone, or root's
                os.killpg(process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        if process.poll() is None and isinstance(error, subprocess.TimeoutExpired):
            raise NotEndedError(error.cmd, error.timeout) from error
        raise
