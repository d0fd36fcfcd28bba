"""Room to write: folders that are gone afterwards, also those of a process that was killed, and
whether there is enough of it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR

from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import hidden_folder, reveal_name
from opslib.core.formatting import format_bytes
from opslib.core.ownership import make_folder

_YOUNG_S = 60.0


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty hidden folder in `parent`; it is removed when the block ends.

    Those made for the same `name` whose owner died are removed first; the owner's lock tells.
    Raises StorageError: `parent` cannot be written.
    """
    with storage_errors(f"write into {parent}"):
        make_folder(parent)
        _sweep(parent, name)
    with hidden_folder(parent / name) as folder:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(descriptor)


def _sweep(parent: Path, name: str) -> None:
    """Remove what dead owners left behind; a folder of another account, or younger than a minute,
    is left alone."""
    for folder in parent.iterdir():
        if reveal_name(folder.name, "tmp") != name:
            continue
        with suppress(OSError):
            found = folder.lstat()
            ours = S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if not ours or time.time() - found.st_mtime < _YOUNG_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def ensure_room(folder: Path, needed: int, what: str) -> None:
    """Refuse what does not fit on a folder's disk, before any of it is written. Raises
    StorageError: fewer bytes are free than are `needed`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder}: {what} needs {format_bytes(needed)}, {format_bytes(free)} are free"
        )
