"""Releases, whose plan (`opslib.ops.release.prune`) becomes part of the nightly one; restored ones:
old folders go whole, unless a model in them is in use; and leftovers: files, links and folders that
writers of ours never finished, known by their names, old, and written by nobody.

Earlier versions ended such a name with eight random characters, which a person's own backup may
have too (`.best.pt.20260930`): what has such a name is left alone.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from opslib.core.errors import InputError, StorageError, storage_errors
from opslib.core.files import is_temporary, reveal_name
from opslib.core.plans import Action
from opslib.ops.release.companions import ARCHIVE_SUFFIX
from opslib.ops.release.prune import plan_prune
from opslib.ops.release.store import is_release_name, list_releases
from opslib.serving.leases import lease_folders
from opslib.upkeep.claims import Claim, Claims
from opslib.upkeep.in_use import InUse, Units
from opslib.upkeep.models_prune import QUANTIZED_FOLDER, ModelShelf
from opslib.upkeep.open_files import is_written
from opslib.upkeep.rounds import KILLED, Duty, Round, list_files, measure

RELEASES, RESTORED, LEFTOVERS = "releases", "restored releases", "leftovers"
_COMPANION = re.compile(r"(release-\d{8}-\d{6}-\w+)(\.tar\.gz\.sha256|\.manifest\.json(?:\.sig)?)")


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
        actions.append(replace(step, target=this.name_of(path), run=run))
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


def plan_leftovers(this: Round) -> Duty:
    """Plan which leftovers are deleted: of what was to appear whole (`core.files`)."""
    archive = this.config.logs_dir / "archive"
    old_days = this.config.maintenance.leftover_hours / 24
    actions = []
    for folder in _folders(this):
        # Nobody but a maintenance round, of which there is one at a time, writes archives.
        limit_days = -math.inf if folder == archive else old_days
        with storage_errors(f"read {this.name_of(folder)}"):
            found = sorted(path for path in folder.iterdir() if is_temporary(path.name))
            for path in found:
                if _is_abandoned(this, path, limit_days):
                    why = "left by a writer that died"
                    run = partial(_delete_leftover, this, path, limit_days)
                    size = path.lstat().st_size if _is_single(path) else measure(path)
                    actions.append(Action("delete", this.name_of(path), why, run, size))
    return Duty(LEFTOVERS, tuple(actions))


def _folders(this: Round) -> Iterator[Path]:
    config = this.config
    quantized = config.exp_dir / QUANTIZED_FOLDER
    within = (config.exp_dir / one for one in ("", "checkpoints", "logs/archive", "logs/jobs"))
    folders = [
        *(config.logs_dir, config.export_dir, config.records_dir, config.releases_dir),
        *(config.restore_dir, config.report_dir, config.report_dir / "trends"),
        *(config.root, *within),
        *(quantized, *sorted(quantized.glob("*/")), *lease_folders(config)),
    ]
    for folder in dict.fromkeys(folders):
        try:
            if this.find_folder(folder).is_dir():
                yield folder
        except StorageError:
            continue  # its own duty says so


def _is_single(path: Path) -> bool:
    return path.is_symlink() or not path.is_dir()


def _is_abandoned(this: Round, path: Path, limit_days: float) -> bool:
    """Whether it and all in it are old, and nobody writes any of it."""
    paths = [path] if _is_single(path) else [path, *path.rglob("*")]
    newest = max(one.lstat().st_mtime for one in paths)
    if this.days_since(newest) <= limit_days:
        return False
    return not any(is_written(one) for one in paths if one.is_file() and not one.is_symlink())


def _delete_leftover(this: Round, path: Path, limit_days: float) -> None:
    this.find_folder(path.parent)
    with storage_errors(f"delete {this.name_of(path)}"):
        if not _is_abandoned(this, path, limit_days):
            raise StorageError("somebody writes it")
        if _is_single(path):
            size = path.lstat().st_size
            path.unlink()
            this.note_freed(path, size)
        else:
            this.delete_folder(path, path)
