"""Room to write: folders that are gone afterwards, also those of a process that was killed, and
whether there is enough of it."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR

from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import hidden_folder, hide_name, reveal_name
from opslib.core.formatting import format_bytes
from opslib.core.ownership import make_folder


@contextmanager
def scratch_folder(parent: Path, name: str, *, young_s: float = 60.0) -> Iterator[Path]:
    """Yield an empty hidden folder in `parent`; it is removed when the block ends. Those made for
    the same `name` whose owner died are removed first, as the owner's lock tells; one younger than
    `young_s` is left alone, and one of another account by all but root. Raises StorageError:
    `parent` cannot be written."""
    with storage_errors(f"write into {parent}"):
        make_folder(parent)
        for folder in parent.iterdir():
            if reveal_name(folder.name, "tmp") == name:
                with suppress(OSError):
                    _remove_left_behind(folder, parent / name, young_s)
    with hidden_folder(parent / name) as folder, _locked(folder, fcntl.LOCK_EX):
        yield folder


def _remove_left_behind(folder: Path, meant: Path, young_s: float) -> None:
    found = folder.lstat()
    ours = S_ISDIR(found.st_mode) and os.geteuid() in (0, found.st_uid)
    if ours and not 0 <= time.time() - found.st_mtime < young_s:
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            aside = folder.rename(hide_name(meant))  # who works in it still may be ending
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def ensure_room(folder: Path, needed: int, what: str) -> None:
    """Refuse what does not fit on a folder's disk, before any of it is written. Raises
    StorageError: fewer bytes are free than are `needed`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        needs = f"{what} needs {format_bytes(needed)}"
        raise StorageError(f"{folder}: {needs}, {format_bytes(free)} are free")
