"""Rotating a log that may be written this very moment, in the way that its writer loses nothing.

- Nobody writes it, or its writer opens it anew after a rename (our service, which is known by its
  process, and the logs named in `maintenance.reopened_logs`): it is renamed, and compressed once
  the kernel says that nobody holds it open for writing any more.
- Anybody else: the front that was archived is taken off under the writer; see `cut_log`.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from opslib.core.errors import storage_errors
from opslib.core.files import fsync_folder
from opslib.upkeep.cut_log import finish_cut, recall_cut
from opslib.upkeep.gzip_logs import compress_file
from opslib.upkeep.log_names import is_rotated
from opslib.upkeep.open_files import await_release, find_writers, is_written
from opslib.upkeep.rounds import Entry, Round, look_at
from opslib.upkeep.take_front import take_front

RELEASE_WAIT_S = 2.0
_HELD = "its writer has not let go of it yet; a later run compresses it"
NOTE = re.compile(r"\.(.+)\.rotating\.json")


def rotate_log(this: Round, entry: Entry, archive: Path) -> None:
    """Move what is in the log into the folder `archive`, whoever writes it.

    Raises:
        StorageError: the disk refuses, or its writer would leave a hole.
    """
    log, planned_bytes = entry.path, entry.size_bytes
    this.find_folder(log.parent)
    this.find_folder(archive)
    with storage_errors(f"rotate {log.name}"):
        entry = look_at(log)
        if entry.size_bytes < planned_bytes:
            return  # it was rotated meanwhile
        written = is_written(log)
        writers = find_writers(log) if written else ()
        reopened = log.name in this.config.maintenance.reopened_logs
        if reopened or not written or (writers and all(one.reopens for one in writers)):
            _rename_away(this, entry, archive)
            return
        _cut(this, entry, archive)


def compress_rotated(this: Round, entry: Entry, archive: Path) -> None:
    """Compress a log that was renamed before, unless its writer still holds it.

    Raises:
        StorageError: the disk refuses.
    """
    this.find_folder(entry.path.parent)
    if not entry.path.exists():
        return  # it was the tail of a rotation that was finished meanwhile
    if is_written(entry.path):
        this.notes.append(f"{this.name_of(entry.path)}: {_HELD}")
        return
    _, freed = compress_file(entry.path, archive)
    this.note_freed(entry.path, freed)


def finish_rotation(this: Round, note: Path, archive: Path) -> None:
    """Finish the rotation that a killed run wrote down in `note`.

    Raises:
        StorageError: the disk refuses or the note cannot be read.
    """
    cut = recall_cut(note)
    if not cut.marked and not (archive / cut.archive).exists():
        note.unlink()
    elif not finish_cut(note.parent, cut):
        this.notes.append(f"logs/{cut.log}: replaced since a killed run; it is left as it is")
    tail = note.parent / cut.tail
    if tail.exists():
        compress_file(tail, archive)


def delete_log(this: Round, entry: Entry, archive: Path) -> None:
    """Delete an old log; one that somebody opened at this very moment is kept.

    Raises:
        StorageError: the disk refuses, or it changed after the plan was made.
    """
    this.find_folder(entry.path.parent)
    with storage_errors(f"delete {entry.path.name}"):
        aside = entry.path
        if not is_rotated(this.config, entry.path.name):
            aside = _free_names(entry.path.parent, archive, entry)[0]
            entry.path.rename(aside)
        if is_written(aside):
            this.notes.append(f"{this.name_of(aside)}: {_HELD}")
            return
        this.delete(replace(entry, path=aside), target=entry.path)


def _rename_away(this: Round, entry: Entry, archive: Path) -> None:
    folder = entry.path.parent
    aside = _free_names(folder, archive, entry)[0]
    entry.path.rename(aside)
    fsync_folder(folder)
    if await_release(aside, RELEASE_WAIT_S):
        _, freed = compress_file(aside, archive)
        this.note_freed(entry.path, freed)
    else:
        this.notes.append(f"{this.name_of(aside)}: {_HELD}")


def _cut(this: Round, entry: Entry, archive: Path) -> None:
    folder, log = entry.path.parent, entry.path
    name, tail = _free_names(folder, archive, entry)
    target = archive / f"{name.name}.gz"
    cut = take_front(log, target, tail.name)
    if cut is None:
        return
    removed = cut.removes if cut.way == "collapse" else cut.archived_to
    this.note_freed(log, removed - target.stat().st_size)
    if tail.exists():
        _, freed = compress_file(tail, archive)
        this.note_freed(log, freed)


def _free_names(folder: Path, archive: Path, entry: Entry) -> list[Path]:
    """Two names for what is in the log that are taken neither among the logs nor in the archive."""
    base, found, number = f"{entry.path.name}.{entry.stamp}", list[Path](), 0
    while len(found) < 2:
        number += 1
        path = folder / (base if number == 1 else f"{base}-{number}")
        if not os.path.lexists(path) and not os.path.lexists(archive / f"{path.name}.gz"):
            found.append(path)
    return found
