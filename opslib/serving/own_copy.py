"""The service's own copy of a model's files, so that nobody else can change the bytes in use.

ONNX Runtime maps the weights files that lie beside a model. Whoever empties such a file, as `cp`
onto it does first, ends every process that maps it with SIGBUS, and whoever overwrites it changes
the answers; a private mapping guards against neither. The copy has a name only while it is loaded:
after that its bytes are the session's alone, and gone with it. A model in one file is read into
memory, as a checkpoint is, and needs no copy.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import copy_file, hidden_folder, reveal_name
from opslib.core.formatting import format_bytes
from opslib.core.models import ModelFiles

_NAME = "own-copy"
_SPARE_BYTES = 16 << 20  # for whoever else writes there meanwhile


@contextmanager
def copy_model(files: ModelFiles, place: Path) -> Iterator[ModelFiles]:
    """Yield copies of a model's files, in a hidden folder of `place` that is removed at the end.

    Raises:
        StorageError: there is no room, or `place` cannot be written.
        OSError: a file cannot be read.
    """
    need, free = files.size_bytes, shutil.disk_usage(place).free
    if free < need + _SPARE_BYTES:
        raise StorageError(
            f"{place}: the service's own copy of the model needs {format_bytes(need)}, "
            f"{format_bytes(free)} are free"
        )
    with _reserve(place) as folder:
        with storage_errors("make the service's own copy of the model"):
            copies = [_copy(path, files.path.parent, folder) for path in files.all]
        yield ModelFiles(copies[0], tuple(copies[1:]))


@contextmanager
def _reserve(place: Path) -> Iterator[Path]:
    """Yield a hidden folder, locked for as long as this process lives; those that a killed
    service left are removed first, or a service that is killed at each start would fill the disk.
    """
    with _locked(place) as turn, hidden_folder(place / _NAME) as folder, _locked(folder):
        for other in place.iterdir():
            if other != folder and reveal_name(other.name, "tmp") == _NAME:
                with suppress(OSError), _locked(other, wait=False):
                    shutil.rmtree(other)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield folder


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[int]:
    """Yield a descriptor that holds the folder's lock; a process that is killed gives it back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(path: Path, folder: Path, copy: Path) -> Path:
    target = copy / path.relative_to(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_file(path, target)
    return target
