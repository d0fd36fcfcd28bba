"""Waiting for what no event announces: another process, the kernel, a service."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.02


def await_that(holds: Callable[[], object], what: str = "it", deadline_s: float = 30.0) -> None:
    """Wait until `holds()` is true; fail, naming `what`, when it is not in time."""
    give_up = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < give_up, f"{what} did not happen within {deadline_s:g} s"
        time.sleep(POLL_S)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def await_end(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    await_that(lambda: not is_alive(pid), f"the end of process {pid}")
