"""Rotating the log of a program that keeps it open, for Linux hosts: by size or age, ten kept.

The twin of `scripts/rotate_logs.ps1`. A log that nobody has open is renamed and compressed. From
under a writer the archived front is taken off (see `cut_log`): nothing is lost on ext4 and xfs. A
run that was killed at any moment is finished by the next one.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import ExitCode, InputError, StorageError, storage_errors
from opslib.core.files import reveal_name
from opslib.core.formatting import format_bytes, now_text
from opslib.core.locks import hold_lock
from opslib.core.plans import Action, Plan, carry_out
from opslib.core.records import Record
from opslib.upkeep import rotation_rules as rules
from opslib.upkeep.cut_log import note_path
from opslib.upkeep.gzip_logs import compress_file
from opslib.upkeep.live_logs import finish_move, move_log
from opslib.upkeep.log_names import is_log, tunnel_log_path
from opslib.upkeep.open_files import is_written
from opslib.upkeep.rounds import DAY_S

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


def run_rotation(
    config: Config, *, log: Path | None = None, dry_run: bool = False, show: Show
) -> RotateRecord:
    """Rotate a log, by default `rotate.log` or the experiment's own, if it is due; delete what is
    over the number kept, and say what was done. Raises `InputError` where the log's folder is not
    there, the log is no file, or the maintenance's own; `BusyError` where another run is under way;
    `StorageError` where the log's folder cannot be read."""
    path = tunnel_log_path(config) if log is None else log.absolute()
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; expected the folder of the log")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"{path}: is no regular file; name the log itself")
    if path.parent.resolve() == config.logs_dir.resolve() and is_log(config, path.name):
        raise InputError(f"{path}: `pillops maintain` rotates the logs of the experiment")
    with hold_lock(path.with_name(f".{path.name}.lock"), f"rotation of {path.name}"):
        return _Rotation(config, path, show).run(dry_run=dry_run)


class _Rotation:
    """One run under its lock."""

    def __init__(self, config: Config, log: Path, show: Show) -> None:
        section = config.rotate
        self._log, self._folder, self._show = log, log.parent, show
        self._limits = section
        given = section.state
        beside = log.with_name(f".{log.name}.rotation.json")
        self._state = config.resolve(given) if given else beside
        self._note = note_path(self._folder, log.name)
        self._now_s = int(time.time())
        self._made: list[str] = []
        self._deleted: list[str] = []
        self._skipped: list[str] = []
        self._untold: list[str] = []

    def run(self, *, dry_run: bool) -> RotateRecord:
        """What needs no room comes first, then what a killed run left; the rest follows from what
        is there after that."""

        def carry(plan: Plan) -> None:
            outcome = carry_out(plan, dry_run=dry_run, show=self._show)
            self._deleted += [one.target for one in outcome.done if one.verb == "delete"]
            self._skipped += [f"{one.action.describe()}: {one.reason}" for one in outcome.skipped]

        first = [self._plan_finish, self._plan_leftovers]
        if not dry_run:
            self._sweep()
            first.insert(0, self._plan_surplus)
        for make in first:
            if (plan := make()).actions:
                carry(plan)
        since_s = self._read_since()
        if not dry_run and since_s == self._now_s:
            self._keep_since()
        size = self._log.stat().st_size if self._log.exists() else 0
        due = rules.find_due(size, (self._now_s - since_s) / DAY_S, self._limits)
        carry(self._plan_rotation(size, due))
        surplus = self._plan_surplus(*([self._next_archive()] if due and dry_run else []))
        if surplus.actions:
            carry(surplus)
        return self._account(size, due)

    def _plan_finish(self) -> Plan:
        why = "a killed run left it"
        step = Action("finish", self._note.name, why, self._finish_cut)
        return Plan(f"{self._log}: unfinished", (step,) if self._note.exists() else ())

    def _plan_leftovers(self) -> Plan:
        """Content set aside by a killed run; none of it while a cut still needs it."""
        if self._note.exists():
            return Plan("")
        paths = [self._folder / n for n in self._list() if rules.is_set_aside(n, self._log.name)]
        why = "a killed run left it"
        steps = [Action("compress", p.name, why, partial(self._finish_aside, p)) for p in paths]
        return Plan(f"{self._log}: unfinished", tuple(steps))

    def _plan_rotation(self, size: int, due: rules.Due) -> Plan:
        if not due:
            return Plan(f"{self._log}: not due")
        why = f"{self._limits.max_mb:g} MiB or more"
        if due == "age":
            why = f"{self._limits.max_days:g} days since its last rotation"
        what = f"{self._log.name} ({format_bytes(size)})"
        return Plan(str(self._log), (Action("rotate", what, why, self._rotate),))

    def _plan_surplus(self, *planned: str) -> Plan:
        keep, names = self._limits.keep, [*self._list(), *planned]
        why = f"the newest {keep} are kept"
        old = map(self._folder.joinpath, rules.find_surplus(self._log.name, names, keep))
        steps = [Action("delete", p.name, why, p.unlink, p.stat().st_size) for p in old]
        return Plan(f"{self._log}: old archives", tuple(steps))

    def _account(self, size: int, due: str) -> RotateRecord:
        skipped = (*self._skipped, *dict.fromkeys(self._untold))
        for line in [f"skipped: {one}" for one in skipped] + [f"made {one}" for one in self._made]:
            self._show(line)
        return RotateRecord(
            at_utc=now_text(),
            log=str(self._log),
            size_bytes=size,
            due=due,
            archives=tuple(self._made),
            deleted=tuple(self._deleted),
            skipped=skipped,
            exit_code=int(ExitCode.SKIPPED if skipped else ExitCode.PASS),
        )

    # --- one rotation, and what a killed one left -----------------------------------------------

    def _rotate(self) -> None:
        before, archive = len(self._made), self._next_archive()
        tail = self._folder / self._next_archive(archive).removesuffix(".gz")
        with storage_errors(f"rotate {self._log.name}"):
            move_log(
                self._log,
                self._folder / archive,
                tail,
                reopened=False,
                put_back=True,
                made=lambda path, _: self._made.append(path.name),
            )
        if len(self._made) == before:
            self._show(f"{self._log.name}: less than a block is in it; left for later")
        if self._made:
            self._keep_since()

    def _sweep(self) -> None:
        """Remove the half-written files of a killed run; under the lock nobody writes others."""
        for name in self._list():
            meant = reveal_name(name, "tmp") or ""
            ours = {self._state.name, self._note.name}
            if meant in ours or rules.is_set_aside(meant.removesuffix(".gz"), self._log.name):
                try:
                    (self._folder / name).unlink()
                except OSError as error:
                    self._untold.append(f"delete {name}: a killed run left it: {error.strerror}")

    def _finish_cut(self) -> None:
        cut, same = finish_move(self._note, self._folder)
        if same:
            self._made.append(cut.archive)

    def _finish_aside(self, path: Path) -> None:
        if is_written(path):
            raise StorageError("a program still writes it; restart that program")
        self._made.append(compress_file(path, self._folder)[0].name)

    # --- names and state ------------------------------------------------------------------------

    def _list(self) -> list[str]:
        with storage_errors(f"read {self._folder}"):
            return sorted(path.name for path in self._folder.iterdir())

    def _next_archive(self, *taken: str) -> str:
        """The next name that is neither an archive nor set aside, in the order of the days."""
        names = self._list()
        day = datetime.fromtimestamp(self._now_s, tz=UTC).strftime("%Y%m%d")
        names += [*(f"{one}.gz" for one in names), *taken]
        return rules.name_archive(self._log.name, day, names)

    def _keep_since(self) -> None:
        """Keep from when the age counts; where there is no room even over the old one, the log is
        rotated by its size alone until there is."""
        untold = LastRotation(since_s=self._now_s).keep(self._state)
        if untold:
            self._untold.append(f"keep when it was rotated: {untold}")

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
