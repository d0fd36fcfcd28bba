"""Logs: compressed into the archive when old or large, deleted when the archive is old enough."""

import os
import re
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from opslib.core.errors import storage_errors
from opslib.core.formatting import format_bytes
from opslib.core.plans import Action
from opslib.upkeep.gzip_logs import compress_file
from opslib.upkeep.live_logs import finish_move, move_log
from opslib.upkeep.log_names import is_log, is_rotated
from opslib.upkeep.maintenance_record import SkippedItem
from opslib.upkeep.open_files import find_writers, is_written
from opslib.upkeep.rounds import Duty, Entry, Round, list_files, look_at

LOGS, ARCHIVE = "logs", "log archive"
_MIB = 1 << 20
_HELD = "its writer has not let go of it yet; a later run compresses it"
_NOTE = re.compile(r"\.(.+)\.rotating\.json")


def archive_folder(this: Round) -> Path:
    """Return where compressed logs lie, `{exp_dir}/logs/archive`."""
    return this.config.logs_dir / "archive"


def plan_logs(this: Round) -> Duty:
    """Plan what happens to the logs (`maintenance.log_patterns`), and to what a killed run left of
    them."""
    folder = this.find_folder(this.config.logs_dir)
    archive = this.find_folder(archive_folder(this))
    actions, passed_over = [], []
    for note in list_files(folder, partial(_is_note, this)):
        why = "a run was killed while it rotated it"
        run = partial(_finish, this, note.path, archive)
        actions.append(Action("finish rotating", this.name_of(note.path), why, run))
    # The small ones first: on a full disk each makes room for a larger one's archive.
    logs = list_files(
        folder, lambda name: is_log(this.config, name) or is_rotated(this.config, name)
    )
    for entry in sorted(logs, key=lambda entry: entry.size_bytes):
        try:
            step = _plan_log(this, entry, archive)
        except OSError as error:
            name, reason = this.name_of(entry.path), error.strerror or str(error)
            passed_over.append(SkippedItem(duty=LOGS, target=name, reason=reason))
        else:
            actions += [step] if step else []
    return Duty(LOGS, tuple(actions), tuple(passed_over))


def plan_archive(this: Round) -> Duty:
    """Plan which compressed logs are deleted."""
    folder = this.find_folder(archive_folder(this))
    logs = list_files(folder, lambda name: name.endswith(".gz") and name[0] != ".")
    old = (one for one in logs if this.age_days(one) > this.config.maintenance.archive_days)
    return Duty(ARCHIVE, tuple(this.deletion(one, _why_deleted(this, one)) for one in old))


def _is_note(this: Round, name: str) -> bool:
    """Whether a file is the note of a rotation of ours: `pillops rotate` finishes its own."""
    found = _NOTE.fullmatch(name)
    return found is not None and is_log(this.config, found[1])


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
        delete = partial(_delete, this, entry, archive)
        return this.deletion(entry, _why_deleted(this, entry), delete)
    if rotated:
        run = partial(_compress, this, entry, archive)
        return Action("compress", name, f"{size}, rotated before", run)
    if written and entry.size_bytes < 2 * os.statvfs(entry.path).f_bsize:
        return None  # somebody holds it open, and there is next to nothing in it
    run = partial(_rotate, this, entry, archive)
    if large:
        return Action("rotate", name, f"{size}, over {section.rotate_mb:g} MiB", run)
    why = f"{size}, last written {age:.0f} days ago"
    return Action("rotate" if written else "compress", name, why, run)


def _why_deleted(this: Round, entry: Entry) -> str:
    if entry.size_bytes == 0:
        return "empty"
    limit = this.config.maintenance.archive_days
    return f"last written {this.age_days(entry):.0f} days ago; logs are kept {limit}"


def _rotate(this: Round, planned: Entry, archive: Path) -> None:
    """Move what is in a log into the archive, whoever writes it. Our own service opens its log
    anew after a rename, and so do the writers of `maintenance.reopened_logs`."""
    log = planned.path
    this.find_folder(log.parent)
    this.find_folder(archive)
    with storage_errors(f"rotate {log.name}"):
        entry = look_at(log)
        if entry.size_bytes < planned.size_bytes:
            return  # it was rotated meanwhile
        writers = find_writers(log) if is_written(log) else ()
        ours = bool(writers) and all(one.reopens for one in writers)
        front, tail = _free_names(entry, archive)
        held = move_log(
            log,
            archive / f"{front.name}.gz",
            tail,
            reopened=ours or log.name in this.config.maintenance.reopened_logs,
            put_back=False,
            made=lambda _, freed: this.note_freed(log, freed),
        )
    if held is not None:
        this.notes.append(f"{this.name_of(held)}: {_HELD}")


def _compress(this: Round, entry: Entry, archive: Path) -> None:
    """Compress a log that was renamed before, unless its writer still holds it."""
    this.find_folder(entry.path.parent)
    if not entry.path.exists():
        return  # it was the tail of a rotation that was finished meanwhile
    if is_written(entry.path):
        this.notes.append(f"{this.name_of(entry.path)}: {_HELD}")
        return
    this.note_freed(entry.path, compress_file(entry.path, archive)[1])


def _finish(this: Round, note: Path, archive: Path) -> None:
    """Finish the rotation that a killed run wrote down in `note`."""
    cut, same = finish_move(note, archive)
    if same is False:
        this.notes.append(f"logs/{cut.log}: replaced since a killed run; it is left as it is")
    tail = note.parent / cut.tail
    if tail.exists():
        compress_file(tail, archive)


def _delete(this: Round, entry: Entry, archive: Path) -> None:
    """Delete an old log; one that somebody opened at this very moment is kept."""
    this.find_folder(entry.path.parent)
    with storage_errors(f"delete {entry.path.name}"):
        aside = entry.path
        if not is_rotated(this.config, entry.path.name):
            aside, _ = _free_names(entry, archive)
            entry.path.rename(aside)
        if is_written(aside):
            this.notes.append(f"{this.name_of(aside)}: {_HELD}")
            return
        this.delete(replace(entry, path=aside), target=entry.path)


def _free_names(entry: Entry, archive: Path) -> tuple[Path, Path]:
    """Two names for what is in the log that are taken neither among the logs nor in the archive."""
    base = f"{entry.path.name}.{entry.stamp}"
    names = (base if number == 1 else f"{base}-{number}" for number in count(1))
    places = ((entry.path.with_name(name), archive / f"{name}.gz") for name in names)
    free = (path for path, packed in places if not any(map(os.path.lexists, (path, packed))))
    return next(free), next(free)
