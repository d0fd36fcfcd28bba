"""A second copy of a release, on another disk, that was read back from there."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import ParameterError
from opslib.core.files import ensure_writable, open_atomic, write_bytes_atomic
from opslib.core.locks import hold_lock
from opslib.ops.release.companions import checksum_path, manifest_path, read_checksum
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.scratch import ensure_room
from opslib.ops.release.store import LOCK_NAME, sweep_leftovers
from opslib.ops.release.verify import VerifyRecord, verify_release

_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 1 << 20


def copy_release(archive: Path, folder: Path, *, config: Config) -> VerifyRecord:
    """Copy a release into `folder` under its own name and verify every byte of the copy.

    A copy that is there already is verified, not made again. The copy takes its name last, as a
    release does, and is read back from the disk rather than from memory where the system allows.
    Raises ReleaseError: the release, or its copy, is not what its checksum says; StorageError:
    there is no room, or the folder cannot be written; ParameterError: the folder is the one that
    the release lies in; BusyError: another release is being written there.
    """
    ensure_writable(folder)
    if folder.resolve() == archive.parent.resolve():
        raise ParameterError(f"--copy-to {folder}: the release lies there already")
    target = folder / archive.name
    expected = read_checksum(archive)
    with hold_lock(folder / LOCK_NAME, "copying a release"):
        sweep_leftovers(folder)
        if not target.exists():
            _copy(archive, target, expected)
    copied = read_checksum(target)
    if copied != expected:
        raise ReleaseError(f"{target}: another release of the same name lies there")
    _forget_cache(target)
    return verify_release(target, config=config, load_models=False)


def _copy(archive: Path, target: Path, expected: str) -> None:
    ensure_room(target.parent, archive.stat().st_size + _SPARE_BYTES, "a copy")
    digest = hashlib.sha256()
    with archive.open("rb", buffering=0) as source, open_atomic(target) as sink:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            sink.write(chunk)
        if digest.hexdigest() != expected:
            raise ReleaseError(f"{archive}: its bytes are not those of its .sha256")
        write_bytes_atomic(checksum_path(target), checksum_path(archive).read_bytes())
        if manifest_path(archive).exists():
            write_bytes_atomic(manifest_path(target), manifest_path(archive).read_bytes())


def _forget_cache(path: Path) -> None:
    """Ask the system to drop what it remembers of a file, so that it is read from the disk."""
    with suppress(OSError), path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
