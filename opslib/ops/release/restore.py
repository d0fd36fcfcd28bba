"""Restoring a release into a fresh folder that the service may serve from."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from opslib.core.config import Config
from opslib.core.errors import StorageError
from opslib.core.files import folder_atomic, fsync_folder, link_atomic
from opslib.core.locks import hold_lock
from opslib.ops.release.companions import ARCHIVE_SUFFIX
from opslib.ops.release.manifest import EXPORT_FOLDER, Manifest
from opslib.ops.release.store import sweep_leftovers
from opslib.ops.release.verify import Progress, VerifiedModel, check_models, examine, silent

LOCK_NAME = ".restore.lock"


@dataclass(frozen=True)
class Restored:
    """A release that was unpacked and verified; `model` is the one it is about."""

    folder: Path
    manifest: Manifest
    model: Path
    checks: tuple[VerifiedModel, ...] = ()


def restore_release(
    path: Path,
    target: Path | None = None,
    *,
    config: Config,
    load_models: bool = True,
    progress: Progress = silent,
) -> Restored:
    """Unpack a release into a folder that does not exist yet, verify it, and return what it is.
    `path`: the archive. `target`: the folder; below `reload.restore_dir`, named after the release,
    by default. Raises ReleaseError: it is damaged, unsafe, or its models do not answer as they
    must; StorageError: the folder is there already, cannot be written, or the disk is full;
    BusyError: another restore into the same place is under way."""
    name = path.name.removesuffix(ARCHIVE_SUFFIX)
    folder = target if target is not None else config.restore_dir / name
    with ExitStack() as stack:
        if folder.parent == config.restore_dir:
            stack.enter_context(hold_lock(folder.parent / LOCK_NAME, "restoring a release"))
            sweep_leftovers(folder.parent, folders=True)
        if folder.exists() or folder.is_symlink():
            raise StorageError(
                f"{folder}: is there already; remove it, or restore into another with --out"
            )
        if any("\ud800" <= sign <= "\udfff" for sign in str(folder)):  # as ONNX Runtime asks
            raise StorageError(f"{folder}: no UTF-8 name; a model there could not be loaded")
        progress(0.0, "unpacking")
        with folder_atomic(folder) as unpacked:
            manifest = examine(path, config, folder=unpacked, durable=True).manifest
            checks: tuple[VerifiedModel, ...] = ()
            if load_models:
                checks = check_models(manifest, unpacked, config, path.name, progress)
            for link, member in manifest.links.items():
                link_atomic(unpacked / EXPORT_FOLDER / link, PurePosixPath(member).name)
            for inside in (unpacked, *(one for one in unpacked.rglob("*") if one.is_dir())):
                fsync_folder(inside)
    return Restored(folder, manifest, folder / manifest.main, checks)


def is_servable(config: Config, model: Path) -> bool:
    """Return whether a running service may switch to a model that lies there."""
    allowed = [
        config.export_dir,
        config.restore_dir,
        *map(config.resolve, config.reload.model_dirs),
    ]
    return any(model.resolve().is_relative_to(folder.resolve()) for folder in allowed)
