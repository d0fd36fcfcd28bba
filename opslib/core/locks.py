"""Locks that say who holds them; the kernel frees them when their holder dies.

Root and the account of the service exclude each other: a lock file that root makes belongs to whom
its folder belongs, and one that can only be read is locked all the same.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opslib.core.accounts import make_own_folder
from opslib.core.errors import BusyError, storage_errors
from opslib.core.formatting import utc_now
from opslib.core.ownership import make_folder, open_or_make

LOCK_DIR_VARIABLE = "PILLOPS_LOCK_DIR"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_PROBE_S = 2.0  # longer than anybody holds a folder to look or to change a file in it
_POLL_S = 0.01
_NOTE_BYTES = 300
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@contextmanager
def hold_lock(path: Path, purpose: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` for the block; who holds it stands in it meanwhile.

    Where a full disk has no room for a file that was never made, the folder itself is locked, which
    turns away everybody who wants a lock in it. Raises `BusyError` where someone else holds it for
    longer than `wait_s`; the message says who; `StorageError` where the file cannot be made, or is
    a link.
    """
    with storage_errors(f"lock {path}"):
        descriptor, is_folder = _open_lock(path)
    try:
        held = take_flock(descriptor, max(wait_s, _PROBE_S) if is_folder else wait_s)
        if not held or not (is_folder or _is_folder_free(path.parent, wait_s)):
            raise BusyError(f"{purpose}: the lock is held by {_read_note(descriptor)}")
        _write_note(descriptor, f"{purpose} (pid {os.getpid()}, since {utc_now():%F %T} UTC)")
        try:
            yield
        finally:
            _write_note(descriptor, "")
    finally:
        os.close(descriptor)


def take_flock(descriptor: int, wait_s: float, how: int = fcntl.LOCK_EX) -> bool:
    """Take the kernel's lock on an open file or folder; return whether it came within `wait_s`."""
    give_up = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def host_lock_path(resource: str) -> Path:
    """Return where the lock of a host-wide resource (`timing`, `gpu-0`) lives for this account.

    `PILLOPS_LOCK_DIR` names another folder, for hosts whose temporary folder is private. Not
    `XDG_RUNTIME_DIR`: cron's jobs have none, and a lock looked for at two places is none. Raises
    `StorageError` where the default folder is not this account's alone.
    """
    folder = os.environ.get(LOCK_DIR_VARIABLE)
    own = Path(folder) if folder else make_own_folder("locks", LOCK_DIR_VARIABLE)
    return own / f"{resource}.lock"


def _open_lock(path: Path) -> tuple[int, bool]:
    """Open the lock file, or the nearest folder where there is no room for it; say whether that."""
    try:
        make_folder(path.parent)
        return _open(path), False
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
    there = next(one for one in path.parents if one.is_dir())
    return os.open(there, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), True


def _is_folder_free(folder: Path, wait_s: float) -> bool:
    """Whether nobody locked the folder for want of room for a file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return take_flock(descriptor, max(wait_s, _PROBE_S), fcntl.LOCK_SH)
    except OSError:  # a file system on which folders cannot be locked
        return True
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return open_or_make(path, os.O_RDWR | _SAFE)
    except PermissionError:
        if not path.exists():
            raise
    return os.open(path, os.O_RDONLY | _SAFE)  # another account's


def _write_note(descriptor: int, text: str) -> None:
    with suppress(OSError):  # only a courtesy: on a full disk the lock still has to work
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _read_note(descriptor: int) -> str:
    with suppress(OSError):
        text = os.pread(descriptor, _NOTE_BYTES, 0).decode("utf-8", "replace")
        return "".join(filter(str.isprintable, text)) or "another process"
    return "another process"
