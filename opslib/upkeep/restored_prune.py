"""Restored releases: old folders go whole, unless a model in them is in use."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from opslib.core.errors import storage_errors
from opslib.core.files import reveal_name
from opslib.core.plans import Action
from opslib.ops.release.store import is_release_name
from opslib.upkeep.claims import Claim, Claims
from opslib.upkeep.in_use import Digests, InUse
from opslib.upkeep.models_prune import ModelShelf
from opslib.upkeep.rounds import Duty, Round, measure

RESTORED = "restored releases"


def plan_restored(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which restored releases are deleted; see `maintenance.restored_days`.

    Raises:
        StorageError: the folder cannot be read, or a link leads out of the experiment.
    """
    home = this.find_folder(this.config.restore_dir)
    limit = this.config.maintenance.restored_days
    claims, actions = Claims(this), list[Action]()
    with storage_errors(f"read {home}"):
        folders = sorted(home.iterdir()) if home.is_dir() else []
        for folder in folders:
            if folder.is_symlink() or not folder.is_dir():
                continue
            if is_release_name(reveal_name(folder.name, "deleted") or ""):
                why = "a run was killed while it deleted it"
                name = folder.with_name(reveal_name(folder.name, "deleted") or folder.name)
                claim = Claim(name, partial(_find_use_of, shelf, name), hidden=folder)
            elif is_release_name(folder.name):
                age = this.days_since(folder.lstat().st_mtime)
                if age <= limit or _find_use(folder, shelf.in_use, shelf.digests) is not None:
                    continue
                why = f"restored {age:.0f} days ago, kept {limit}; not in use"
                claim = Claim(folder, partial(_find_use_of, shelf, folder))
            else:
                continue
            run = partial(_delete, this, claims, claims.add(claim), folder)
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


def _find_use_of(shelf: ModelShelf, folder: Path, in_use: InUse, place: Path) -> str | None:
    """Why a folder is in use by its name, or by what lies in it where it is now."""
    return _find_use(folder, in_use, shelf.digests) or (
        _find_use(place, in_use, shelf.digests) if place != folder else None
    )


def _delete(this: Round, claims: Claims, claim: Claim, target: Path) -> None:
    this.delete_folder(claims.take(claim), target)
