"""Locks that say who holds them; the kernel frees them when their holder dies."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from opslib.core.errors import BusyError, storage_errors
from opslib.core.formatting import utc_now

LOCK_DIR_VARIABLE = "PILLOPS_LOCK_DIR"


@contextmanager
def hold_lock(path: Path, purpose: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` for the block.

    Raises:
        BusyError: someone else holds it for longer than `wait_s`; the message says who.
    """
    note = path.with_suffix(".holder")
    lock = FileLock(path)
    with storage_errors(f"lock {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=wait_s)
        except Timeout as error:
            raise BusyError(f"{purpose}: the lock is held by {_read(note)}") from error
    try:
        with suppress(OSError):  # only a courtesy: on a full disk the lock still has to work
            note.write_text(f"{purpose} (pid {os.getpid()}, since {utc_now():%F %T} UTC)")
        yield
    finally:
        with suppress(OSError):
            note.unlink()
        lock.release()


def _read(note: Path) -> str:
    with suppress(OSError):
        return note.read_text() or "another process"
    return "another process"


def host_lock_path(resource: str) -> Path:
    """Return where the lock of a host-wide resource (`timing`, `gpu-0`) lives for this user.

    `PILLOPS_LOCK_DIR` names another folder, for hosts whose temporary folder is private.
    """
    folder = os.environ.get(LOCK_DIR_VARIABLE)
    default = Path(tempfile.gettempdir()) / f"pillops-{getpass.getuser()}"
    return (Path(folder) if folder else default) / f"{resource}.lock"
