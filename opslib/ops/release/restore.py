"""Taking a release out of the store: restored into a fresh folder that the service may serve from,
or copied to another disk and read back from there."""

import hashlib
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from opslib.core.config import Config
from opslib.core.errors import ParameterError, StorageError
from opslib.core.files import (
    ensure_writable,
    folder_atomic,
    fsync_folder,
    link_atomic,
    open_atomic,
    write_bytes_atomic,
)
from opslib.core.locks import hold_lock
from opslib.ops.release.companions import (
    ARCHIVE_SUFFIX,
    checksum_path,
    manifest_path,
    read_checksum,
    signature_path,
)
from opslib.ops.release.manifest import EXPORT_FOLDER, Manifest, ReleaseError
from opslib.ops.release.scratch import ensure_room
from opslib.ops.release.signature import Demand, SignatureFacts
from opslib.ops.release.sources import Archive, as_archive
from opslib.ops.release.store import LOCK_NAME as STORE_LOCK_NAME
from opslib.ops.release.store import sweep_leftovers
from opslib.ops.release.verify import (
    Progress,
    VerifiedModel,
    VerifyRecord,
    check_models,
    examine,
    silent,
    verify_release,
)

LOCK_NAME = ".restore.lock"


@dataclass(frozen=True)
class Restored:
    """A release that was unpacked and verified; `model` is the one it is about."""

    folder: Path
    manifest: Manifest
    model: Path
    checks: tuple[VerifiedModel, ...] = ()
    signature: SignatureFacts | None = None


def restore_release(
    found: Path | Archive,
    target: Path | None = None,
    *,
    config: Config,
    load_models: bool = True,
    demand: Demand = "demanded",
    progress: Progress = silent,
) -> Restored:
    """Unpack a release into a folder that does not exist yet, verify it, and return what it is.
    `found`: the archive, read once from wherever it lies. `target`: the folder; below
    `reload.restore_dir`, named after the release, by default. `demand`: whether it must be signed,
    see `signature.check_signature`. Raises ReleaseError: it is damaged, unsafe, not signed as it
    must be, or its models do not answer as they must; StorageError: the folder is there already,
    cannot be written, or the disk is full; BusyError: another restore into the same place is under
    way."""
    archive = as_archive(found)
    name = archive.file_name.removesuffix(ARCHIVE_SUFFIX)
    folder = target if target is not None else config.restore_dir / name
    with ExitStack() as stack:
        if folder.parent == config.restore_dir:
            stack.enter_context(hold_lock(folder.parent / LOCK_NAME, "restoring a release"))
            sweep_leftovers(folder.parent, folders=True)
        if folder.exists() or folder.is_symlink():
            remedy = "remove it, or restore into another with --out"
            raise StorageError(f"{folder}: is there already; {remedy}")
        if any("\ud800" <= sign <= "\udfff" for sign in str(folder)):  # as ONNX Runtime asks
            raise StorageError(f"{folder}: no UTF-8 name; a model there could not be loaded")
        progress(0.0, "unpacking")
        with folder_atomic(folder) as unpacked:
            facts = examine(archive, config, demand=demand, folder=unpacked, durable=True)
            manifest = facts.manifest
            checks: tuple[VerifiedModel, ...] = ()
            if load_models:
                checks = check_models(manifest, unpacked, config, archive.file_name, progress)
            for link, member in manifest.links.items():
                link_atomic(unpacked / EXPORT_FOLDER / link, PurePosixPath(member).name)
            for inside in (unpacked, *(one for one in unpacked.rglob("*") if one.is_dir())):
                fsync_folder(inside)
    return Restored(folder, manifest, folder / manifest.main, checks, facts.signature)


def is_servable(config: Config, model: Path) -> bool:
    """Return whether a running service may switch to a model that lies there."""
    others = map(config.resolve, config.reload.model_dirs)
    allowed = (config.export_dir, config.restore_dir, *others)
    return any(model.resolve().is_relative_to(folder.resolve()) for folder in allowed)


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
    with hold_lock(folder / STORE_LOCK_NAME, "copying a release"):
        sweep_leftovers(folder)
        if not target.exists():
            _copy(archive, target, expected)
        _copy_missing(signature_path(archive), signature_path(target))
    copied = read_checksum(target)
    if copied != expected:
        raise ReleaseError(f"{target}: another release of the same name lies there")
    _forget_cache(target)
    return verify_release(target, config=config, load_models=False, demand="not asked")


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
        for path_of in (manifest_path, signature_path):
            _copy_missing(path_of(archive), path_of(target))


def _copy_missing(source: Path, target: Path) -> None:
    if source.exists() and not target.exists():
        write_bytes_atomic(target, source.read_bytes())


def _forget_cache(path: Path) -> None:
    """Ask the system to drop what it remembers of a file, so that it is read from the disk."""
    with suppress(OSError), path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
