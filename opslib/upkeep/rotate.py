"""Rotating the log of a program that keeps it open, for Linux hosts: by size or age, ten kept.

The twin of `scripts/rotate_logs.ps1`. A log that nobody has open is renamed and compressed. From
under a writer the archived front is taken off (see `cut_log`): nothing is lost on ext4 and xfs. A
run that was killed at any moment is finished by the next one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import ExitCode, InputError, StorageError, storage_errors
from opslib.core.files import fsync_folder, overwrite, reveal_name
from opslib.core.formatting import format_bytes
from opslib.core.locks import hold_lock
from opslib.core.plans import Action, Outcome, Plan, carry_out
from opslib.core.records import Record
from opslib.upkeep.cut_log import finish_cut, note_path, recall_cut
from opslib.upkeep.gzip_logs import compress_file
from opslib.upkeep.log_names import is_log, tunnel_log_path
from opslib.upkeep.open_files import await_release, is_written
from opslib.upkeep.rotation_rules import (
    MEBIBYTE,
    Due,
    RotationPolicy,
    find_due,
    find_surplus,
    is_set_aside,
    name_archive,
)
from opslib.upkeep.rounds import DAY_S
from opslib.upkeep.take_front import take_front

RELEASE_WAIT_S = 2.0

Show = Callable[[str], None]


class LastRotation(Record):
    """When the age of a log began to count: its last rotation, else the first look at it."""

    schema_name = "rotation-state"

    since_s: int


class RotateRecord(Record):
    """One run of the rotation: what was due, what was made, deleted and left."""

    schema_name = "rotate"

    at_utc: str
    log: str
    size_bytes: int
    due: str
    archives: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    exit_code: int = 0


def rotated_log_path(config: Config, log: Path | None = None) -> Path:
    """Return the log that is rotated: `log`, else `rotate.log`, else the experiment's own."""
    return tunnel_log_path(config) if log is None else log.absolute()


def run_rotation(
    config: Config, *, log: Path | None = None, dry_run: bool = False, show: Show
) -> RotateRecord:
    """Rotate the log if it is due, delete what is over the number kept, and say what was done.

    Raises:
        InputError: the log's folder is not there, the log is no file, or the maintenance's own.
        BusyError: another run is under way.
        StorageError: the log's folder cannot be read.
    """
    path = rotated_log_path(config, log)
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; expected the folder of the log")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"{path}: is no regular file; name the log itself")
    if path.parent.resolve() == config.logs_dir.resolve() and is_log(config, path.name):
        raise InputError(f"{path}: `pillops maintain` rotates the logs of the experiment")
    with hold_lock(path.with_name(f".{path.name}.lock"), f"rotation of {path.name}"):
        return _Rotation(config, path, show).run(dry_run=dry_run)


@dataclass(frozen=True)
class _Names:
    """The next archive of a log and the file that its content is set aside in."""

    archive: str
    aside: str


class _Rotation:
    """One run under its lock."""

    def __init__(self, config: Config, log: Path, show: Show) -> None:
        section = config.rotate
        self._log, self._folder, self._show = log, log.parent, show
        self._policy = RotationPolicy(section.max_mb * MEBIBYTE, section.max_days, section.keep)
        given = section.state
        beside = log.with_name(f".{log.name}.rotation.json")
        self._state = config.resolve(given) if given else beside
        self._now_s = int(time.time())
        self._made: list[str] = []
        self._untold: list[str] = []

    def run(self, *, dry_run: bool) -> RotateRecord:
        """What needs no room comes first, then what a killed run left; the rest follows from what
        is there after that."""
        first = [self._plan_finish, self._plan_leftovers]
        if not dry_run:
            self._sweep()
            first.insert(0, self._plan_surplus)
        outcomes = [
            carry_out(plan, dry_run=dry_run, show=self._show)
            for make in first
            if (plan := make()).actions
        ]
        since_s = self._read_since()
        if not dry_run and since_s == self._now_s:
            self._keep_since()
        size = self._log.stat().st_size if self._log.exists() else 0
        due = find_due(size, (self._now_s - since_s) / DAY_S, self._policy)
        outcomes.append(carry_out(self._plan_rotation(size, due), dry_run=dry_run, show=self._show))
        surplus = self._plan_surplus(*([self._next().archive] if due and dry_run else []))
        if surplus.actions:
            outcomes.append(carry_out(surplus, dry_run=dry_run, show=self._show))
        return self._account(size, due, outcomes)

    def _plan_finish(self) -> Plan:
        note = note_path(self._folder, self._log.name)
        step = Action("finish", note.name, "a killed run left it", self._finish_cut)
        return Plan(f"{self._log}: unfinished", (step,) if note.exists() else ())

    def _plan_leftovers(self) -> Plan:
        """Content set aside by a killed run; none of it while a cut still needs it."""
        if note_path(self._folder, self._log.name).exists():
            return Plan("")
        paths = [self._folder / n for n in self._list() if is_set_aside(n, self._log.name)]
        why = "a killed run left it"
        steps = [Action("compress", p.name, why, partial(self._finish_aside, p)) for p in paths]
        return Plan(f"{self._log}: unfinished", tuple(steps))

    def _plan_rotation(self, size: int, due: Due) -> Plan:
        if not due:
            return Plan(f"{self._log}: not due")
        why = f"{self._policy.max_bytes / MEBIBYTE:g} MiB or more"
        if due == "age":
            why = f"{self._policy.max_days:g} days since its last rotation"
        what = f"{self._log.name} ({format_bytes(size)})"
        return Plan(str(self._log), (Action("rotate", what, why, self._rotate),))

    def _plan_surplus(self, *planned: str) -> Plan:
        steps = []
        names = [*self._list(), *planned]
        for name in find_surplus(self._log.name, names, self._policy.keep):
            path, why = self._folder / name, f"the newest {self._policy.keep} are kept"
            steps.append(Action("delete", name, why, path.unlink, path.stat().st_size))
        return Plan(f"{self._log}: old archives", tuple(steps))

    def _account(self, size: int, due: str, outcomes: list[Outcome]) -> RotateRecord:
        skipped = tuple(
            f"{one.action.describe()}: {one.reason}"
            for outcome in outcomes
            for one in outcome.skipped
        )
        skipped += tuple(dict.fromkeys(self._untold))
        for one in skipped:
            self._show(f"skipped: {one}")
        for name in self._made:
            self._show(f"made {name}")
        deleted = [a.target for outcome in outcomes for a in outcome.done if a.verb == "delete"]
        return RotateRecord(
            at_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            log=str(self._log),
            size_bytes=size,
            due=due,
            archives=tuple(self._made),
            deleted=tuple(deleted),
            skipped=skipped,
            exit_code=int(ExitCode.SKIPPED if skipped else ExitCode.PASS),
        )

    # --- one rotation ---------------------------------------------------------------------------

    def _rotate(self) -> None:
        with storage_errors(f"rotate {self._log.name}"):
            if is_written(self._log) or not self._rename_away():
                self._cut()
        if self._made:
            self._keep_since()

    def _rename_away(self) -> bool:
        """Rename and compress; False where somebody opened the log at that very moment, who finds
        it at its old place then."""
        aside = self._folder / self._next().aside
        self._log.rename(aside)
        fsync_folder(self._folder)
        if not await_release(aside, RELEASE_WAIT_S):
            os.link(aside, self._log)
            aside.unlink()
            return False
        self._compress(aside)
        return True

    def _cut(self) -> None:
        names = self._next()
        tail = self._folder / self._next(names.archive).aside
        if take_front(self._log, self._folder / names.archive, tail.name) is None:
            self._show(f"{self._log.name}: less than a block is in it; left for later")
            return
        self._made.append(names.archive)
        if tail.exists():
            self._compress(tail)

    def _compress(self, aside: Path) -> None:
        target, _ = compress_file(aside, self._folder)
        self._made.append(target.name)

    # --- what a killed run left -----------------------------------------------------------------

    def _sweep(self) -> None:
        """Remove the half-written files of a killed run; under the lock nobody writes others."""
        for name in self._list():
            meant = reveal_name(name, "tmp") or ""
            ours = {self._state.name, note_path(self._folder, self._log.name).name}
            if meant in ours or is_set_aside(meant.removesuffix(".gz"), self._log.name):
                try:
                    (self._folder / name).unlink()
                except OSError as error:
                    self._untold.append(f"delete {name}: a killed run left it: {error.strerror}")

    def _finish_cut(self) -> None:
        note = note_path(self._folder, self._log.name)
        cut = recall_cut(note)
        archive = self._folder / cut.archive
        if not cut.marked and not archive.exists():
            note.unlink()
        elif finish_cut(self._folder, cut):
            self._made.append(cut.archive)

    def _finish_aside(self, path: Path) -> None:
        if is_written(path):
            raise StorageError("a program still writes it; restart that program")
        self._compress(path)

    # --- names and state ------------------------------------------------------------------------

    def _list(self) -> list[str]:
        with storage_errors(f"read {self._folder}"):
            return sorted(path.name for path in self._folder.iterdir())

    def _next(self, *taken: str) -> _Names:
        """The next names that are neither an archive nor set aside, in the order of the days."""
        names = self._list()
        day = datetime.fromtimestamp(self._now_s, tz=UTC).strftime("%Y%m%d")
        archive = name_archive(
            self._log.name, day, [*names, *(f"{name}.gz" for name in names), *taken]
        )
        return _Names(archive, archive.removesuffix(".gz"))

    def _keep_since(self) -> None:
        """Keep from when the age counts; where there is no room even over the old one, the log is
        rotated by its size alone until there is."""
        record = LastRotation(since_s=self._now_s)
        try:
            record.write(self._state)
        except StorageError as error:
            try:
                overwrite(self._state, record.to_json().encode())
            except StorageError:
                self._untold.append(f"keep when it was rotated: {error}")

    def _read_since(self) -> int:
        """When the age began to count; a state that is damaged or from the future begins today."""
        if not self._state.exists():
            return self._now_s
        try:
            since_s = LastRotation.read(self._state).since_s
            if since_s <= self._now_s:
                return since_s
            reason = f"{self._state}: lies in the future"
        except InputError as error:
            reason = str(error)
        self._show(f"{reason}; the age counts from today")
        return self._now_s
