"""Restored releases: old folders go whole, unless a model in them is in use."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import hide_name, reveal_name
from opslib.core.plans import Action
from opslib.release.store import is_release_name
from opslib.upkeep.in_use import Digests, InUse, find_in_use
from opslib.upkeep.models_prune import ModelShelf
from opslib.upkeep.rounds import DAY_S, Duty, Round, measure

RESTORED = "restored releases"


def plan_restored(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which restored releases are deleted; see `maintenance.restored_days`.

    Raises:
        StorageError: the folder cannot be read, or a link leads out of the experiment.
    """
    home = this.find_folder(this.config.restore_dir)
    limit = this.config.maintenance.restored_days
    actions = []
    with storage_errors(f"read {home}"):
        folders = sorted(home.iterdir()) if home.is_dir() else []
        for folder in folders:
            if folder.is_symlink() or not folder.is_dir():
                continue
            if is_release_name(reveal_name(folder.name, "deleted") or ""):
                why = "a run was killed while it deleted it"
                run = partial(this.delete_folder, folder, folder)
            elif is_release_name(folder.name):
                age = (this.now.timestamp() - folder.lstat().st_mtime) / DAY_S
                if age <= limit or _find_use(folder, shelf.in_use, shelf.digests) is not None:
                    continue
                why = f"restored {age:.0f} days ago, kept {limit}; not in use"
                run = partial(_delete, this, shelf, folder)
            else:
                continue
            actions.append(Action("delete", this.name_of(folder), why, run, measure(folder)))
    return Duty(RESTORED, tuple(actions))


def _find_use(folder: Path, in_use: InUse, digests: Digests) -> str | None:
    """Why a model in the folder is in use, or None: what is served is known by its path, and where
    that means nothing here (a container's), by its name or digest."""
    real = folder.resolve()
    for path, why in in_use.paths.items():
        if path.is_relative_to(real):
            return why
    live = in_use.live
    if live.path is not None and live.path.exists():
        return None
    for model in sorted(folder.rglob("*.onnx")):
        is_named = live.path is not None and live.path.name == model.name
        if is_named or (live.sha256 is not None and digests.of(model) == live.sha256):
            return "served now, as /version says"
    return None


def _delete(this: Round, shelf: ModelShelf, folder: Path) -> None:
    """Delete a restored release unless it is in use by now; it is hidden first, then removed."""
    this.find_folder(folder)
    why = _find_use(folder, find_in_use(this), shelf.digests)
    if why is not None:
        raise StorageError(f"it is in use by now: {why}")
    hidden = hide_name(folder, "deleted")
    with storage_errors(f"delete {this.name_of(folder)}"):
        folder.rename(hidden)
    this.delete_folder(hidden, folder)
