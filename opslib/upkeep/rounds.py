"""One maintenance round: what it counts ages from, what its steps freed, what it may touch."""

import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from opslib.core.clock import ASK
from opslib.core.config import Config
from opslib.core.config_edit import on_one_line
from opslib.core.errors import StorageError, storage_errors
from opslib.core.formatting import STAMP_FORMAT
from opslib.core.plans import Action
from opslib.upkeep.maintenance_record import SkippedItem

DAY_S = 86_400.0
KILLED = "a run was killed while it deleted it"


@dataclass(frozen=True)
class Entry:
    """A regular file as it was when the plan was made."""

    path: Path
    size_bytes: int
    mtime_ns: int
    inode: int

    @property
    def stamp(self) -> str:
        """When it was last written, as `%Y%m%d-%H%M%S` in UTC."""
        moment = datetime.fromtimestamp(min(self.mtime_ns / 1e9, 253_402_300_799), tz=UTC)
        return moment.strftime(STAMP_FORMAT)


@dataclass(frozen=True)
class Duty:
    """One of the things a round does: its steps, what it passed over, what is worth knowing."""

    name: str
    actions: tuple[Action, ...] = ()
    passed_over: tuple[SkippedItem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Round:
    """The configuration, the moment that ages are counted from, and what the steps report.

    `clock_doubt` says why the moment is not believed; nothing is old then. `freed_bytes` holds
    what a step really freed, by its target; `notes` what it found.
    """

    config: Config
    now: datetime
    clock_doubt: str | None = None
    freed_bytes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def age_days(self, entry: Entry) -> float:
        """Return how long ago the file was written, in days; see `days_since`."""
        return self.days_since(entry.mtime_ns / 1e9)

    def days_since(self, moment_s: float) -> float:
        """Return the age of what is dated `moment_s` (Unix seconds), in days: negative for what is
        from the future, 0 for everything where the clock is in doubt."""
        return 0.0 if self.clock_doubt else (self.now.timestamp() - moment_s) / DAY_S

    def note_ahead(self, paths: Iterable[Path]) -> tuple[str, ...]:
        """Return the note that these are dated after now and left alone; none where there are
        none."""
        names = sorted(map(self.name_of, paths))
        if not names:
            return ()
        rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return (f"dated after now, neither counted nor deleted: {names[0]}{rest}; {ASK}",)

    def name_of(self, path: Path) -> str:
        """Return the path as the plan shows it, on one line: relative to the experiment where it
        lies in it."""
        home = self.config.exp_dir
        return on_one_line(str(path.relative_to(home) if path.is_relative_to(home) else path))

    def find_folder(self, folder: Path) -> Path:
        """Return `folder` if it may be cleaned. Raises `StorageError` where it lies in the
        experiment by its name, but a link leads out of it or in a circle."""
        home = self.config.exp_dir
        try:
            inside = folder.resolve().is_relative_to(home.resolve())
        except RuntimeError as error:  # so Python up to 3.12 tells of links that lead in a circle
            raise StorageError("a link leads in a circle; it is not followed") from error
        if folder.is_relative_to(home) and not inside:
            raise StorageError("a link leads out of the experiment; it is not followed")
        return folder

    def deletion(self, entry: Entry, why: str, run: Callable[[], None] | None = None) -> Action:
        """Return the step that deletes a file, by `run` or by `delete`."""
        do = run or partial(self.delete, entry)
        return Action("delete", self.name_of(entry.path), why, do, entry.size_bytes)

    def delete(self, entry: Entry, *, target: Path | None = None) -> None:
        """Delete a file that is still the one that was planned for; note what that freed, by the
        step's `target` if that has another name. Raises `StorageError` where it changed, became a
        link, or its folder is a link out of the experiment."""
        self.find_folder(entry.path.parent)
        with storage_errors(f"delete {self.name_of(entry.path)}"):
            try:
                seen = entry.path.lstat()
            except FileNotFoundError:
                return
            is_same = (seen.st_ino, seen.st_mtime_ns) == (entry.inode, entry.mtime_ns)
            if not (is_same and stat.S_ISREG(seen.st_mode)):
                raise StorageError("it changed after the plan was made")
            entry.path.unlink()
        self.note_freed(target or entry.path, seen.st_size if seen.st_nlink == 1 else 0)

    def delete_folder(self, folder: Path, target: Path) -> None:
        """Delete a folder with all in it; note what that freed by the step's `target`."""
        self.find_folder(folder)
        with storage_errors(f"delete {self.name_of(target)}"):
            freed = measure(folder)
            shutil.rmtree(folder)
            self.note_freed(target, freed)

    def note_freed(self, path: Path, size_bytes: int) -> None:
        """Add to what the step whose target is `path` freed."""
        name = self.name_of(path)
        self.freed_bytes[name] = self.freed_bytes.get(name, 0) + size_bytes


def measure(folder: Path) -> int:
    """Return the bytes of everything in a folder; links count as themselves."""
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def look_at(path: Path) -> Entry:
    """Return the regular file at `path` as it is now. Raises `OSError` where it is not there, or a
    link or a folder took its place."""
    seen = path.lstat()
    if not stat.S_ISREG(seen.st_mode):
        raise FileNotFoundError(2, "is no regular file", str(path))
    return Entry(path, seen.st_size, seen.st_mtime_ns, seen.st_ino)


def list_files(folder: Path, wanted: Callable[[str], object]) -> list[Entry]:
    """Return the regular files of `folder` (links are none) whose names are wanted, by name.

    A folder that is not there has no files. Raises `StorageError` where it cannot be read.
    """
    found = []
    with (
        storage_errors(f"read {folder}"),
        suppress(FileNotFoundError),
        os.scandir(folder) as entries,
    ):
        for one in entries:
            if wanted(one.name) and one.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    found.append(look_at(folder / one.name))
    return sorted(found, key=lambda entry: entry.path)


def by_age(entry: Entry) -> tuple[int, str]:
    """Return what sorts files of a folder, the oldest first."""
    return entry.mtime_ns, entry.path.name


def plan_duty(name: str, plan: Callable[..., Duty], *given: object) -> Duty:
    """Return what `plan` returns, or the duty passed over where a folder cannot be read, a link
    leads out of the experiment, or it is not known what must be kept."""
    try:
        return plan(*given)
    except (StorageError, OSError) as error:
        return pass_over(name, str(error))


def pass_over(name: str, reason: str) -> Duty:
    """Return a duty of which nothing is done."""
    return Duty(name, passed_over=(SkippedItem(duty=name, target=name, reason=reason),))
