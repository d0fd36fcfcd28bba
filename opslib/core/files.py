"""Files and folders that appear whole or not at all, and their digests.

What is being written has a hidden name until it is whole, and what is being deleted has one until
it is gone: `.<name>.pillops-<16 hex digits>.tmp` and `.deleted`. They are made and known again
here alone, so that nothing a person named is ever taken for something of ours. What the disk
refuses, such as room, is a `StorageError` that says what was being done.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from opslib.core.errors import storage_errors
from opslib.core.ownership import Owner, make_folder, settle

_COPY_BYTES = 1 << 23
_NOT_BY_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_NAME_BYTES = 200  # of the name within a hidden one, which may have 255 bytes
_HIDDEN = re.compile(r"\.(?P<name>.+)\.pillops-[0-9a-f]{16}\.(?P<kind>tmp|deleted)", re.DOTALL)
Hidden = Literal["tmp", "deleted"]


def hide_name(path: Path, kind: Hidden = "tmp") -> Path:
    """Return a new hidden name beside `path`: for what shall become it, or is no longer to be."""
    name = os.fsdecode(os.fsencode(path.name)[:_KEPT_NAME_BYTES])
    return path.with_name(f".{name}.pillops-{secrets.token_hex(8)}.{kind}")


def is_temporary(name: str) -> bool:
    """Return whether a file, folder or link of this name was never finished: only what
    `hide_name` made has such a name."""
    return reveal_name(name, "tmp") is not None


def reveal_name(name: str, kind: Hidden) -> str | None:
    """Return the name that a hidden one stands for, or None where it is none of this kind."""
    found = _HIDDEN.fullmatch(name)
    return found["name"] if found and found["kind"] == kind else None


def expand_user(path: Path) -> Path:
    """Return `path` with `~` expanded. Raises `ValueError` where there is no such user, or the path
    holds a NUL character."""
    if "\0" in str(path):
        raise ValueError("expected a path without a NUL character")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no user {path.parts[0].removeprefix('~')!r}") from error


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_atomic(
    path: Path, *, mode: int | None = None, owner: Owner = "kept"
) -> Iterator[BinaryIO]:
    """Yield a binary file that takes the name `path` when the block ends without an error.

    The bytes are on disk before the name is; after an error nothing is left behind. A `path` that
    is a symlink is replaced, not followed. `mode`: by default that of the file before, 0644 for a
    new one. `owner`: see `ownership.settle`.
    """
    with storage_errors(f"write {path}"):
        make_folder(path.parent)
        temporary = hide_name(path)
        descriptor = os.open(temporary, _NEW_FILE, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                settle(file.fileno(), path, mode, owner)
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def write_bytes_atomic(
    path: Path, data: bytes, *, mode: int | None = None, owner: Owner = "kept"
) -> None:
    """Write `data` to `path` in one step; see `open_atomic`."""
    with open_atomic(path, mode=mode, owner=owner) as file:
        file.write(data)


def write_text_atomic(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write `text` as UTF-8 to `path` in one step; see `open_atomic`."""
    write_bytes_atomic(path, text.encode(), mode=mode)


def overwrite(path: Path, data: bytes) -> None:
    """Write `data` over the file at `path` where it lies, which needs no room on a full disk as
    long as the file filled as many blocks before.

    For what must never be taken for what it was: where this fails, or is killed, the file is
    empty or cannot be read.
    """
    with storage_errors(f"write {path}"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            try:
                left = memoryview(data)
                while left:
                    left = left[os.pwrite(descriptor, left, len(data) - len(left)) :]
                os.ftruncate(descriptor, len(data))
            except OSError:
                os.ftruncate(descriptor, 0)
                raise
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link_atomic(link: Path, target: str | Path) -> None:
    """Point the symlink `link` at `target` (kept as given) without a moment without a link."""
    with storage_errors(f"link {link}"):
        make_folder(link.parent)
        temporary = hide_name(link)
        temporary.symlink_to(target)
        temporary.replace(link)
        fsync_folder(link.parent)


@contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its name when the block ends well.

    After an error the folder is removed with all it holds. `path` must not exist.
    """
    with storage_errors(f"create {path}"):
        make_folder(path.parent)
        aside = make_hidden_folder(path)
        aside.chmod(0o755)
    try:
        yield aside
        with storage_errors(f"create {path}"):
            if path.exists():
                raise FileExistsError(17, "already exists", str(path))
            aside.rename(path)
            fsync_folder(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def make_hidden_folder(path: Path) -> Path:
    """Make an empty folder beside `path`, for its owner alone, and return it. Raises `OSError`
    where it cannot be made."""
    folder = hide_name(path)
    make_folder(folder, mode=0o700)
    return folder


@contextmanager
def hidden_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that is removed with all in it when the block ends."""
    with storage_errors(f"write into {path.parent}"):
        folder = make_hidden_folder(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy `source` into the new file `target`, which only its owner may read.

    Within the kernel, and without copying where the file system lets two files share their blocks.
    Raises `OSError` where `source` cannot be read, `target` is there, or the disk is full.
    """
    descriptor = os.open(target, _NEW_FILE, 0o600)
    with source.open("rb", buffering=0) as given, os.fdopen(descriptor, "wb") as taken:
        try:
            while os.copy_file_range(given.fileno(), taken.fileno(), _COPY_BYTES):
                pass
        except OSError as error:
            if error.errno not in _NOT_BY_KERNEL:
                raise
        shutil.copyfileobj(given, taken, _COPY_BYTES)  # what the kernel left


def ensure_writable(folder: Path) -> Path:
    """Create `folder` if need be, prove that a file can be made in it, and return it."""
    with storage_errors(f"write into {folder}"):
        make_folder(folder)
        probe = hide_name(folder / "probe")
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)
    return folder


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_tree(files: list[Path]) -> str:
    """Return one SHA-256 over names and bytes of `files`, in sorted order, as 64 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(files):
        # A name is bytes: one that is not UTF-8 counts like any other.
        digest.update(os.fsencode(path.name) + f"\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
