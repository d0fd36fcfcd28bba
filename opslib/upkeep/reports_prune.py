"""Dated reports: old ones go, but never one that a document cites or that is somebody's newest.

Of each notebook the newest run stays, so does the newest that finished, and the run that such a
page compares itself with, so that its link leads somewhere.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from opslib.core.clock import parse_moment, part_ahead
from opslib.core.errors import InputError, StorageError, storage_errors
from opslib.core.files import hide_name, reveal_name
from opslib.core.formatting import utc_now
from opslib.core.plans import Action
from opslib.core.records import read_json
from opslib.upkeep.rounds import KILLED, Duty, Round, list_files, measure

REPORTS, DAILY = "reports", "daily records"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_RUN = re.compile(r"\d{6}-(.+)-(?:[0-9a-f]{6}|papermill)")  # the runner's, and the scheduled job's
_DAILY = re.compile(r"(maintenance|checklist_[a-z]+)_\d{8}-\d{6}(-\d+)?\.json|disk_\d{8}\.txt")
_CITED = "cited"
_STAMP_SIGNS = len("YYYYmmdd-HHMMSS")
_RECORD = "run.json"


@dataclass(frozen=True)
class Report:
    """The folder of one run: `<date>/<HHMMSS>-<notebook>-<hex>`, or `-papermill` in its place."""

    folder: Path
    notebook: str

    @property
    def date(self) -> str:
        """The day of the run, as its folder says it."""
        return self.folder.parent.name

    @property
    def id(self) -> str:
        """The run's id, by which a citation knows it."""
        return f"{self.date.replace('-', '')}-{self.folder.name}"

    def read(self) -> dict[str, Any]:
        """Return the run's record, empty where it cannot be read; that of one which plain papermill
        made stands beside its notebook."""
        for name in (_RECORD, f"{self.notebook}.{_RECORD}"):
            with suppress(InputError):
                content = read_json(self.folder / name)
                return content if isinstance(content, dict) else {}
        return {}


def plan_reports(this: Round) -> Duty:
    """Plan which dated reports are deleted; see `maintenance.report_days`."""
    root = this.find_folder(this.config.report_dir)
    limit = this.config.maintenance.report_days
    reports = list_reports(root, this.now)
    old = [one for one in reports if _age_days(this, one.date) > limit]
    paths = (path for day in list_days(root) for path in day.iterdir())
    actions = [
        Action("delete", this.name_of(path), KILLED, partial(_remove, this, path, path))
        for path in paths
        if _RUN.fullmatch(reveal_name(path.name, "deleted") or "")
    ]
    if old:
        kept = Kept(root, this.now)
        for one in old:
            if kept.why(one) is None:
                why, run = f"of {one.date}, kept {limit} days", partial(_delete, this, kept, one)
                size = measure(one.folder)
                actions.append(Action("delete", this.name_of(one.folder), why, run, size))
    return Duty(REPORTS, tuple(actions))


def plan_daily_records(this: Round) -> Duty:
    """Plan which of our own daily records in `{exp_dir}/reports` are deleted; benchmarks stay."""
    folder = this.find_folder(this.config.records_dir)
    limit = this.config.maintenance.report_days
    actions = (
        this.deletion(one, f"written {age:.0f} days ago, kept {limit}")
        for one in list_files(folder, _DAILY.fullmatch)
        if (age := this.age_days(one)) > limit
    )
    return Duty(DAILY, tuple(actions))


def list_days(root: Path) -> list[Path]:
    """Return the dated folders of `root`; links are none."""
    found = root.iterdir() if root.is_dir() else ()
    return [
        day for day in found if _DATE.fullmatch(day.name) and day.is_dir() and not day.is_symlink()
    ]


def list_reports(root: Path, now: datetime) -> list[Report]:
    """Return the folders of runs below `root`, the newest first; links are none, and what is dated
    after now is neither old nor anybody's newest. Raises `StorageError` where it cannot be read."""
    found = []
    with storage_errors(f"read {root}"):
        for day in list_days(root):
            for folder in day.iterdir():
                named = _RUN.fullmatch(folder.name)
                if named and folder.is_dir() and not folder.is_symlink():
                    found.append(Report(folder, named[1]))
    past, _ = part_ahead(found, lambda one: parse_moment(one.id[:_STAMP_SIGNS]), now)
    return sorted(past, key=lambda one: one.folder, reverse=True)


def find_kept(root: Path, reports: list[Report]) -> dict[Path, str]:
    """Return the folders that stay whatever their age, and why."""
    cited = {path.name for path in (root / _CITED).glob("*")}
    kept = {one.folder: "a document cites it" for one in reports if one.id in cited}
    newest: set[str] = set()
    finished: set[str] = set()
    for one in reports:
        if one.notebook in newest and one.notebook in finished:
            continue
        record = one.read()
        done = record.get("status") == "finished"
        if one.notebook not in newest:
            kept.setdefault(one.folder, "the newest run of its notebook")
        elif done:
            kept.setdefault(one.folder, "the newest run of its notebook that finished")
        else:
            continue
        newest.add(one.notebook)
        finished |= {one.notebook} if done else set()
        change = record.get("change")
        against = change.get("against_path") if isinstance(change, dict) else None
        if isinstance(against, str):
            other = (root / against).parent
            kept.setdefault(other, f"{one.id} compares itself with it")
    return kept


def _age_days(this: Round, date: str) -> float:
    """Age of a report's date; one that is no date never grows old."""
    moment = parse_moment(date)
    return this.days_since(moment.timestamp()) if moment else 0.0


class Kept:
    """Which reports stay, looked up once, and again only after something happened that can change
    it: a document cites one, a run of today began or finished, or one that is kept went.

    Only what a run of these days leaves can make an older one the newest, or be compared with it,
    so that a question costs the same however many reports there are.
    """

    def __init__(self, root: Path, now: datetime) -> None:
        self._root, self._now, self._began = root, now, utc_now()
        self._look()

    def why(self, report: Report) -> str | None:
        """Return why the report stays, or None."""
        if os.path.lexists(self._root / _CITED / report.id):
            return "a document cites it"
        if self._stamp() != self._stamped:
            self._look()
        return self._kept.get(report.folder)

    def _look(self) -> None:
        reports = self._list()
        recent = set(self._recent_days())
        open_runs = [
            one.folder
            for one in reports
            if one.folder.parent in recent and one.read().get("status") != "finished"
        ]
        self._kept = find_kept(self._root, reports)
        self._watched = [one for one in self._kept if one.parent.name != _CITED] + open_runs
        self._stamped = self._stamp()
        # What changed between the two looks is found by the next question at the latest.
        if find_kept(self._root, self._list()) != self._kept:
            self._stamped = ()

    def _list(self) -> list[Report]:
        """All reports up to now, which is later than when the round began."""
        return list_reports(self._root, self._now + (utc_now() - self._began))

    def _recent_days(self) -> list[Path]:
        """The folders in which a run of now can lie."""
        now = utc_now()
        return [self._root / f"{now + timedelta(days=day):%Y-%m-%d}" for day in (-1, 0, 1)]

    def _stamp(self) -> tuple[object, ...]:
        places = [*self._recent_days(), *self._watched]
        places += [folder / _RECORD for folder in self._watched]
        return tuple(map(_stamp_of, places))


def _stamp_of(path: Path) -> object:
    """What changes whenever something in a folder, or a file, does; None where there is none."""
    try:
        facts = path.lstat()
    except OSError:
        return None
    return path, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_nlink


def _delete(this: Round, kept: Kept, report: Report) -> None:
    """Delete a report unless it is kept by now; it is hidden first and then removed."""
    this.find_folder(report.folder)
    why = kept.why(report)
    if why is not None:
        raise StorageError(f"it is kept by now: {why}")
    hidden = hide_name(report.folder, "deleted")
    with storage_errors(f"delete {this.name_of(report.folder)}"):
        report.folder.rename(hidden)
    _remove(this, hidden, report.folder)


def _remove(this: Round, hidden: Path, target: Path) -> None:
    this.delete_folder(hidden, target)
    with suppress(OSError):
        hidden.parent.rmdir()
