"""Restored releases: old folders go whole, unless a model in them is in use."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import hide_name, reveal_name
from opslib.core.plans import Action
from opslib.release.store import is_release_name
from opslib.serving.reachable import LiveModel
from opslib.upkeep.in_use import Digests, InUse, find_in_use
from opslib.upkeep.models_prune import ModelShelf
from opslib.upkeep.rounds import Duty, Round, measure, put_back

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
                run = partial(_finish, this, shelf, folder, None)
            elif is_release_name(folder.name):
                age = this.days_since(folder.lstat().st_mtime)
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
    elsewhere = [one for one in in_use.live if one.path is None or not one.path.exists()]
    for model in sorted(folder.rglob("*.onnx")) if elsewhere else ():
        for live in elsewhere:
            is_named = live.path is not None and live.path.name == model.name
            if is_named or (live.sha256 is not None and digests.of(model) == live.sha256):
                return "served now, as /version says"
    return None


def _delete(this: Round, shelf: ModelShelf, folder: Path) -> None:
    """Delete a restored release unless it is in use by now; it is hidden first, then removed."""
    this.find_folder(folder)
    in_use = find_in_use(this)
    why = _find_use(folder, in_use, shelf.digests)
    if why is not None:
        raise StorageError(f"it is in use by now: {why}")
    hidden = hide_name(folder, "deleted")
    with storage_errors(f"delete {this.name_of(folder)}"):
        folder.rename(hidden)
    _finish(this, shelf, hidden, in_use.live)


def _finish(
    this: Round, shelf: ModelShelf, hidden: Path, live: tuple[LiveModel, ...] | None
) -> None:
    """Remove a hidden folder, or give it its name back where a model in it is in use by now."""
    folder = hidden.with_name(reveal_name(hidden.name, "deleted") or hidden.name)
    in_use = find_in_use(this, live)
    why = _find_use(folder, in_use, shelf.digests) or _find_use(hidden, in_use, shelf.digests)
    if why is not None:
        put_back(hidden, folder)
        raise StorageError(f"it is in use by now and was put back: {why}")
    this.delete_folder(hidden, hidden if live is None else folder)
