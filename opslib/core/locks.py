"""Locks that say who holds them; the kernel frees them when their holder dies."""

from __future__ import annotations

import errno
import fcntl
import getpass
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from opslib.core.errors import BusyError, storage_errors
from opslib.core.formatting import utc_now

LOCK_DIR_VARIABLE = "PILLOPS_LOCK_DIR"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_PROBE_S = 0.5  # longer than anybody looks whether a folder is locked
_POLL_S = 0.02


@contextmanager
def hold_lock(path: Path, purpose: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` for the block.

    Where a full disk has no room for a file that was never made, the folder itself is locked,
    which turns away everybody who wants a lock in it.

    Raises:
        BusyError: someone else holds it for longer than `wait_s`; the message says who.
        StorageError: it cannot be locked.
    """
    note = path.with_suffix(".holder")
    with ExitStack() as held:
        with storage_errors(f"lock {path}"):
            try:
                held.enter_context(_take(path, wait_s))
            except Timeout as error:
                raise BusyError(f"{purpose}: the lock is held by {_read(note)}") from error
        held.callback(_forget, note)
        with suppress(OSError):  # only a courtesy: on a full disk the lock still has to work
            note.write_text(f"{purpose} (pid {os.getpid()}, since {utc_now():%F %T} UTC)")
        yield


def _forget(note: Path) -> None:
    with suppress(OSError):
        note.unlink()


@contextmanager
def _lock_folder(folder: Path, how: int, wait_s: float) -> Iterator[None]:
    """Hold the kernel's lock of the nearest folder that is there; it needs no room on the disk.

    Raises:
        Timeout: someone else holds it.
    """
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    descriptor = os.open(there, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    give_up = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= give_up:
                    raise Timeout(str(there)) from error
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _take(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file, or the folder where there is no room for the file."""
    lock = FileLock(path)
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=wait_s)
            held.callback(lock.release)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            held.enter_context(_lock_folder(path.parent, fcntl.LOCK_EX, max(wait_s, _PROBE_S)))
        else:
            _refuse_locked_folder(path.parent, wait_s)
        yield


def _refuse_locked_folder(folder: Path, wait_s: float) -> None:
    """Raise `Timeout` where somebody locked the folder for want of room."""
    try:
        with _lock_folder(folder, fcntl.LOCK_SH, wait_s):
            pass
    except Timeout:
        raise
    except OSError:  # a file system on which folders cannot be locked
        return


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
