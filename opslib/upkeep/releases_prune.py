"""Releases: `opslib.ops.release.prune` decides; here its plan becomes part of the nightly one."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from opslib.core.errors import InputError, StorageError
from opslib.core.plans import Action
from opslib.ops.release.companions import ARCHIVE_SUFFIX
from opslib.ops.release.prune import plan_prune
from opslib.ops.release.store import list_releases
from opslib.upkeep.models_prune import ModelShelf
from opslib.upkeep.rounds import Duty, Round, list_files

RELEASES = "releases"
_COMPANION = re.compile(r"(release-\d{8}-\d{6}-\w+)(\.tar\.gz\.sha256|\.manifest\.json)")


def plan_releases(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which releases are deleted, and what a killed run left of one; see `release.keep`.

    Raises:
        StorageError: it is not known what is pinned or served, or a link leads out of the
            experiment.
    """
    folder = this.find_folder(this.config.releases_dir)
    try:
        plan = plan_prune(this.config, live=shelf.in_use.live, now=this.now)
    except InputError as error:
        raise StorageError(str(error)) from error
    actions = []
    for step in plan.actions:
        path = Path(step.target)
        run = partial(_delete, this, path, step)
        actions.append(Action(step.verb, this.name_of(path), step.why, run, step.frees_bytes))
    limit_days = this.config.maintenance.leftover_hours / 24
    for entry in list_files(folder, _COMPANION.fullmatch):
        named = _COMPANION.fullmatch(entry.path.name)
        archive = folder / f"{named[1] if named else ''}{ARCHIVE_SUFFIX}"
        if this.age_days(entry) > limit_days and not archive.exists():
            why = "its archive is gone"
            run = partial(this.delete, entry)
            actions.append(Action("delete", this.name_of(entry.path), why, run, entry.size_bytes))
    stored = list_releases(this.config, now=this.now)
    notes = this.note_ahead(one.path for one in stored if one.is_ahead)
    return Duty(RELEASES, tuple(actions), notes=notes)


def _delete(this: Round, archive: Path, step: Action) -> None:
    this.find_folder(archive.parent)
    step.run()
    this.note_freed(archive, step.frees_bytes)
