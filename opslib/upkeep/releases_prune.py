"""Releases, whose plan (`opslib.ops.release.prune`) becomes part of the nightly one, and restored
ones: old folders go whole, unless a model in them is in use."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from opslib.core.errors import InputError, StorageError, storage_errors
from opslib.core.files import reveal_name
from opslib.core.plans import Action
from opslib.ops.release.companions import ARCHIVE_SUFFIX
from opslib.ops.release.prune import plan_prune
from opslib.ops.release.store import is_release_name, list_releases
from opslib.upkeep.claims import Claim, Claims
from opslib.upkeep.in_use import InUse, Units
from opslib.upkeep.models_prune import ModelShelf
from opslib.upkeep.rounds import KILLED, Duty, Round, list_files, measure

RELEASES, RESTORED = "releases", "restored releases"
_COMPANION = re.compile(r"(release-\d{8}-\d{6}-\w+)(\.tar\.gz\.sha256|\.manifest\.json)")


def plan_releases(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which releases are deleted, and what a killed run left of one; see `release.keep`."""
    folder = this.find_folder(this.config.releases_dir)
    try:
        plan = plan_prune(this.config, live=shelf.in_use.live, now=this.now)
    except InputError as error:
        raise StorageError(str(error)) from error
    actions = []
    for step in plan.actions:
        path = Path(step.target)
        run = partial(_delete_release, this, path, step)
        actions.append(Action(step.verb, this.name_of(path), step.why, run, step.frees_bytes))
    limit_days = this.config.maintenance.leftover_hours / 24
    for entry in list_files(folder, _COMPANION.fullmatch):
        named = _COMPANION.fullmatch(entry.path.name)
        archive = folder / f"{named[1] if named else ''}{ARCHIVE_SUFFIX}"
        if this.age_days(entry) > limit_days and not archive.exists():
            actions.append(this.deletion(entry, "its archive is gone"))
    stored = list_releases(this.config, now=this.now)
    notes = this.note_ahead(one.path for one in stored if one.is_ahead)
    return Duty(RELEASES, tuple(actions), notes=notes)


def _delete_release(this: Round, archive: Path, step: Action) -> None:
    this.find_folder(archive.parent)
    step.run()
    this.note_freed(archive, step.frees_bytes)


def plan_restored(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which restored releases are deleted; see `maintenance.restored_days`."""
    home = this.find_folder(this.config.restore_dir)
    limit = this.config.maintenance.restored_days
    claims, actions = Claims(this), list[Action]()

    def delete(claim: Claim, hidden: Path) -> None:
        this.delete_folder(hidden, claim.target)

    with storage_errors(f"read {home}"):
        folders = sorted(home.iterdir()) if home.is_dir() else []
        for folder in folders:
            if folder.is_symlink() or not folder.is_dir():
                continue
            name = folder.with_name(reveal_name(folder.name, "deleted") or folder.name)
            if not is_release_name(name.name):
                continue
            age, why = this.days_since(folder.lstat().st_mtime), KILLED
            if name == folder:
                if age <= limit or _find_use(folder, shelf.in_use, shelf.units) is not None:
                    continue
                why = f"restored {age:.0f} days ago, kept {limit}; not in use"
            find_use = partial(_find_use_of, shelf, name)
            claim = Claim(name, find_use, hidden=None if name == folder else folder)
            actions.append(claims.plan(claim, delete, why, measure(folder)))
    return Duty(RESTORED, tuple(actions))


def _find_use(folder: Path, in_use: InUse, units: Units) -> str | None:
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
            if is_named or (live.sha256 is not None and units.digest(model) == live.sha256):
                return "served now, as /version says"
    return None


def _find_use_of(shelf: ModelShelf, folder: Path, in_use: InUse, place: Path) -> str | None:
    """Why a folder is in use by its name, or by what lies in it where it is now."""
    return _find_use(folder, in_use, shelf.units) or (
        _find_use(place, in_use, shelf.units) if place != folder else None
    )
