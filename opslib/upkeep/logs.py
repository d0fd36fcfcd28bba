"""Logs: compressed into the archive when old or large, deleted when the archive is old enough."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from opslib.core.formatting import format_bytes
from opslib.core.plans import Action
from opslib.upkeep.live_logs import (
    NOTE,
    compress_rotated,
    delete_log,
    finish_rotation,
    rotate_log,
)
from opslib.upkeep.log_names import is_log, is_rotated
from opslib.upkeep.open_files import is_written
from opslib.upkeep.rounds import Duty, Entry, PassedOver, Round, list_files

LOGS, ARCHIVE = "logs", "log archive"
_MIB = 1 << 20


def archive_folder(this: Round) -> Path:
    """Return where compressed logs lie, `{exp_dir}/logs/archive`."""
    return this.config.logs_dir / "archive"


def plan_logs(this: Round) -> Duty:
    """Plan what happens to the logs (`maintenance.log_patterns`), and to what a killed run left of
    them.

    Raises:
        StorageError: the folder cannot be read, or a link leads out of the experiment.
    """
    folder = this.find_folder(this.config.logs_dir)
    archive = this.find_folder(archive_folder(this))
    actions, passed_over = [], []
    for note in list_files(folder, partial(_is_note, this)):
        why = "a run was killed while it rotated it"
        run = partial(finish_rotation, this, note.path, archive)
        actions.append(Action("finish rotating", this.name_of(note.path), why, run))
    # The small ones first: on a full disk each makes room for a larger one's archive.
    logs = list_files(folder, partial(_is_of_logs, this))
    for entry in sorted(logs, key=lambda entry: entry.size_bytes):
        try:
            step = _plan_log(this, entry, archive)
        except OSError as error:
            reason = error.strerror or str(error)
            passed_over.append(PassedOver(this.name_of(entry.path), reason))
            continue
        if step is not None:
            actions.append(step)
    return Duty(LOGS, tuple(actions), tuple(passed_over))


def _is_note(this: Round, name: str) -> bool:
    """Whether a file is the note of a rotation of ours: `pillops rotate` finishes its own."""
    found = NOTE.fullmatch(name)
    return found is not None and is_log(this.config, found[1])


def plan_archive(this: Round) -> Duty:
    """Plan which compressed logs are deleted.

    Raises:
        StorageError: the folder cannot be read, or a link leads out of the experiment.
    """
    limit = this.config.maintenance.archive_days
    folder = this.find_folder(archive_folder(this))
    actions = []
    for entry in list_files(folder, lambda name: name.endswith(".gz") and name[0] != "."):
        if this.age_days(entry) > limit:
            run = partial(this.delete, entry)
            why = _why_deleted(this, entry)
            actions.append(Action("delete", this.name_of(entry.path), why, run, entry.size_bytes))
    return Duty(ARCHIVE, tuple(actions))


def _is_of_logs(this: Round, name: str) -> bool:
    return is_log(this.config, name) or is_rotated(this.config, name)


def _plan_log(this: Round, entry: Entry, archive: Path) -> Action | None:
    """The step for one log, or None where its turn has not come."""
    section, age = this.config.maintenance, this.age_days(entry)
    name, size = this.name_of(entry.path), format_bytes(entry.size_bytes)
    rotated = is_rotated(this.config, entry.path.name)
    large = entry.size_bytes >= section.rotate_mb * _MIB
    if not (rotated or large or age > section.log_days):
        return None
    written = is_written(entry.path)
    if not written and (age > section.archive_days or entry.size_bytes == 0):
        run = partial(delete_log, this, entry, archive)
        return Action("delete", name, _why_deleted(this, entry), run, entry.size_bytes)
    if rotated:
        run = partial(compress_rotated, this, entry, archive)
        return Action("compress", name, f"{size}, rotated before", run)
    if written and entry.size_bytes < 2 * os.statvfs(entry.path).f_bsize:
        return None  # somebody holds it open, and there is next to nothing in it
    run = partial(rotate_log, this, entry, archive)
    if large:
        return Action("rotate", name, f"{size}, over {section.rotate_mb:g} MiB", run)
    why = f"{size}, last written {age:.0f} days ago"
    return Action("rotate" if written else "compress", name, why, run)


def _why_deleted(this: Round, entry: Entry) -> str:
    if entry.size_bytes == 0:
        return "empty"
    limit = this.config.maintenance.archive_days
    return f"last written {this.age_days(entry):.0f} days ago; logs are kept {limit}"
