"""Files that several processes read, change and write: one at a time, so that no change is lost.

Who changes a file holds the folder in which it lies: root and the service's account exclude each
other, nothing has to be made for it, and the kernel lets go when a writer dies. What a dead one
left under a hidden name is removed by the next, which knows by the lock that nobody writes it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opslib.core.errors import BusyError, StorageError, storage_errors
from opslib.core.files import open_atomic, reveal_name
from opslib.core.locks import take_flock
from opslib.core.ownership import make_folder

WAIT_S = 10.0
Change = Callable[[bytes | None], bytes]


def change_file(
    path: Path, change: Change, *, mode: int | None = None, wait_s: float = WAIT_S
) -> bool:
    """Replace `path` by what `change` makes of its bytes (None where it is missing); return whether
    it differs. A link is followed; owner, group, mode and access list stay. `mode`: by default that
    of the file before, 0644 for a new one. Raises `BusyError` where another writer is at work for
    longer than `wait_s`; `StorageError` where it cannot be read or written, owner or group cannot
    be kept, or it was changed meanwhile by somebody who does not hold the folder."""
    with storage_errors(f"write {path}"):
        target = Path(os.path.realpath(path))  # of a circle the path itself, which cannot be read
        make_folder(target.parent)
    with sole_writer(target, wait_s=wait_s):
        before = _read(target)
        after = change(before)
        _sweep(target)
        if after == before:
            return False
        with open_atomic(target, mode=mode, owner="demanded") as file:
            file.write(after)
            if _read(target) != before:
                raise StorageError(f"{path}: changed by somebody else just now; run it again")
    return True


@contextmanager
def sole_writer(path: Path, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold for the block what everybody holds who changes `path` or another file of its folder.
    Raises `BusyError` where another writer is at work for longer than `wait_s`; the message says
    which."""
    folder = Path(os.path.realpath(path)).parent
    with storage_errors(f"write into {folder}"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not take_flock(descriptor, wait_s):
            raise BusyError(f"{path}: {_holder(descriptor)} is changing a file in its folder")
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    with storage_errors(f"read {path}"):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _sweep(path: Path) -> None:
    """Remove what writers of `path` left that died; whoever writes it holds the folder."""
    with suppress(OSError):
        for one in os.scandir(path.parent):
            if reveal_name(one.name, "tmp") == path.name:
                Path(one).unlink()


def _holder(descriptor: int) -> str:
    """The process that holds the folder, as the kernel says."""
    found = os.fstat(descriptor)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[5] == f"{device}:{found.st_ino}":
                return f"process {words[4]}"
    return "another process"
