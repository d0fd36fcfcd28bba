"""Which files a reload takes: inside the allowed folders after every link is followed; and its own
copy of them, so that nobody else can change the bytes in use.

ONNX Runtime maps the weights files that lie beside a model. Whoever empties such a file, as `cp`
onto it does first, ends every process that maps it with SIGBUS, and whoever overwrites it changes
the answers; a private mapping guards against neither. The copy has a name only while it is loaded:
after that its bytes are the session's alone, and gone with it. A model in one file is read into
memory, as a checkpoint is, and needs no copy.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from opslib.core.changes import WAIT_S
from opslib.core.errors import ModelError, StorageError, storage_errors
from opslib.core.files import copy_file, hidden_folder, reveal_name
from opslib.core.formatting import format_bytes
from opslib.core.locks import take_flock
from opslib.core.models import ModelFiles, follow_model

_LONGEST = 1024


def confine_path(text: str, folders: Sequence[Path], base: Path) -> Path:
    """Return the model file that `text` names, absolutely or from `base`; see `follow_model`. A
    `ModelError` refuses a URL, a traversal, what lies outside the allowed `folders` (which are
    resolved), is missing, or is no regular `.onnx` file."""
    shown = text[:200]
    if not text.strip() or "\0" in text or len(text) > _LONGEST or not text.isprintable():
        raise ModelError("the path is empty, too long or has control characters")
    if "://" in text:
        raise ModelError(f"{shown}: a URL; expected a file in {_list(folders)}")
    given = Path(text)
    if ".." in given.parts:
        raise ModelError(f"{shown}: climbs with '..'; give the path plainly")
    if given.suffix != ".onnx":
        raise ModelError(f"{shown}: expected a file ending in .onnx")
    path = base / given
    try:
        real = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if not is_inside(Path(os.path.realpath(path.parent)), folders):
            raise ModelError(f"{shown}: outside {_list(folders)}") from error
        circle = error.errno == errno.ELOOP
        reason = "its links lead in a circle" if circle else error.strerror
        raise ModelError(f"{shown}: {reason}") from error
    if not is_inside(real, folders):
        raise ModelError(f"{shown}: outside {_list(folders)}")
    if not real.is_file():
        what = "is a folder" if real.is_dir() else "is no regular file"
        raise ModelError(f"{shown}: {what}; expected an ONNX model")
    return follow_model(path)


def confine_sidecars(files: ModelFiles, folders: Sequence[Path]) -> None:
    """Refuse a model whose weights files are links out of the allowed folders."""
    for sidecar in files.sidecars:
        if not is_inside(Path(os.path.realpath(sidecar)), folders):
            raise ModelError(f"{sidecar}: its weights lie outside {_list(folders)}")


def is_inside(path: Path, folders: Sequence[Path]) -> bool:
    """Return whether a resolved path lies in one of the resolved folders."""
    return any(path.is_relative_to(folder) for folder in folders)


def _list(folders: Sequence[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)


_NAME = "own-copy"
_SPARE_BYTES = 16 << 20  # for whoever else writes there meanwhile


@contextmanager
def copy_model(files: ModelFiles, place: Path) -> Iterator[ModelFiles]:
    """Yield copies of a model's files, in a hidden folder of `place` that is removed at the end; a
    `StorageError` where there is no room or `place` cannot be written."""
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
                with suppress(OSError, StorageError), _locked(other, wait_s=0.0):
                    shutil.rmtree(other)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield folder


@contextmanager
def _locked(folder: Path, *, wait_s: float = WAIT_S) -> Iterator[int]:
    """Yield a descriptor that holds the folder's lock; a process that is killed gives it back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not take_flock(descriptor, wait_s):
            raise StorageError(f"{folder}: another process has held its lock for {wait_s:g} s")
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(path: Path, folder: Path, copy: Path) -> Path:
    target = copy / path.relative_to(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_file(path, target)
    return target
