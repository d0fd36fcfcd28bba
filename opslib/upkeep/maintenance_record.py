"""What one maintenance round did: its record, `{exp_dir}/reports/maintenance_<UTC>.json`, and the
journal that is written line by line while it does it.

A round that ends keeps its record, and the journal goes. One that was killed leaves the journal:
which steps were done, and which one was under way; the next round makes a record of it. On a full
disk the lines wait until there is room for them; they never hold up what makes that room.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from opslib.core.errors import StorageError, storage_errors
from opslib.core.formatting import plural
from opslib.core.ownership import open_to_append
from opslib.core.plans import Action
from opslib.core.records import Part, Record
from opslib.upkeep.gzip_logs import free_name

SUFFIX = ".jsonl"
_UNDER_WAY = "the round ended while it did this; a later one finishes it"


class DoneItem(Part):
    """One finished step: which duty, what was done to which file, why, and what it freed."""

    duty: str
    verb: str
    target: str
    why: str
    freed_bytes: int


class SkippedItem(Part):
    """Something whose turn had come and that was left alone, and the reason."""

    duty: str
    target: str
    reason: str


class DiskUse(Part):
    """How full one mounted filesystem was at a moment; `free_bytes` is what a user may take."""

    at_utc: str
    mount: str
    total_bytes: int
    used_bytes: int
    free_bytes: int

    @property
    def used_pct(self) -> float:
        """Used space in percent of what users can have, as `df` says it."""
        usable = self.used_bytes + self.free_bytes
        return 100.0 * self.used_bytes / usable if usable else 0.0


class MaintenanceRecord(Record):
    """How one round went.

    `limits` are the configured numbers it went by; `notes` what is worth knowing and no fault;
    `warnings` what needs a person.
    """

    schema_name = "maintenance"

    started_at_utc: str
    took_s: float
    exp_dir: str
    freed_bytes: int
    freed_by_duty_bytes: dict[str, int]
    done: tuple[DoneItem, ...] = ()
    skipped: tuple[SkippedItem, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    disks: tuple[DiskUse, ...] = ()
    limits: dict[str, int | float] = {}


def make_record(done: Sequence[DoneItem], **facts: Any) -> MaintenanceRecord:
    """Return the record of a round that did this, with what each duty freed."""
    freed: Counter[str] = Counter()
    for item in done:
        freed[item.duty] += item.freed_bytes
    return MaintenanceRecord(
        freed_bytes=freed.total(), freed_by_duty_bytes=dict(freed), done=tuple(done), **facts
    )


class Journal:
    """The account of one round under way; see `core.plans.Account`.

    Args:
        path: where it is written; made with the first step.
        head: `started_at_utc` and `exp_dir` of the round.
        duties: which duty a step belongs to, by its identity.
        freed_bytes: what a step really freed, by its target.
    """

    def __init__(
        self,
        path: Path,
        head: Mapping[str, str],
        duties: Mapping[int, str],
        freed_bytes: Mapping[str, int],
    ) -> None:
        self.path = path
        self.done: list[DoneItem] = []
        self.skipped: list[SkippedItem] = []
        self._duties, self._freed_bytes = duties, freed_bytes
        self._descriptor: int | None = None
        self._waiting = b""
        self._head: dict[str, Any] = {"pid": os.getpid(), **head}
        self._under_way: Action | None = None

    def begin(self, step: Action) -> None:
        """Write down that a step begins."""
        if self._head:
            self._write("round", self._head)
            self._head = {}
        self._under_way = step
        self._write("begin", {"duty": self._duties[id(step)], "target": step.target})

    def end(self, step: Action, skipped: str | None) -> None:
        """Write down that the step was done, or why it was skipped."""
        self._under_way = None
        duty, target = self._duties[id(step)], step.target
        if skipped is not None:
            self.skip(SkippedItem(duty=duty, target=target, reason=skipped))
            return
        freed = self._freed_bytes.get(target, 0)
        item = DoneItem(duty=duty, verb=step.verb, target=target, why=step.why, freed_bytes=freed)
        self.done.append(item)
        self._write("done", item.model_dump())

    def skip(self, item: SkippedItem) -> None:
        """Write down that something was left alone."""
        self.skipped.append(item)
        self._write("skipped", item.model_dump())

    def interrupt(self) -> None:
        """Count the step that is under way, if any, among those that were not finished."""
        if self._under_way is not None:
            self.end(self._under_way, _UNDER_WAY)

    def close(self, *, remove: bool) -> None:
        """Stop writing; with `remove` the journal goes, since all of it stands in a record."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if remove:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _write(self, kind: str, content: Mapping[str, Any]) -> None:
        self._waiting += json.dumps({kind: content}).encode() + b"\n"
        with suppress(OSError):  # no room: later
            if self._descriptor is None:
                self._descriptor = open_to_append(self.path)
            while self._waiting:
                self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]


def read_journal(path: Path) -> tuple[MaintenanceRecord, int]:
    """Return what a round that left its journal did, as a record, and the process that it was; a
    line that was cut off, or is none of ours, is left out. `StorageError` if it cannot be read."""
    head: dict[str, Any] = {}
    begun: dict[str, str] = {}
    done, skipped = [], []
    with storage_errors(f"read {path}"):
        lines = path.read_bytes().splitlines()
    for line in lines:
        with suppress(ValueError, TypeError, AttributeError, ValidationError):
            ((kind, content),) = json.loads(line).items()
            if kind == "round":
                head = content
            elif kind == "begin":
                begun = content
            elif kind == "done":
                done.append(DoneItem.model_validate(content))
                begun = {}
            elif kind == "skipped":
                skipped.append(SkippedItem.model_validate(content))
                begun = {}
    with suppress(TypeError, ValidationError):
        skipped.append(SkippedItem(**begun, reason=_UNDER_WAY))
    started = head.get("started_at_utc")
    if not started:  # without its head; one that has just ended is gone
        with storage_errors(f"read {path}"):
            moment = datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)
        started = moment.isoformat(timespec="seconds")
    record = make_record(
        done,
        started_at_utc=str(started),
        took_s=0.0,
        exp_dir=str(head.get("exp_dir", "")),
        skipped=tuple(skipped),
        warnings=(f"the round was killed after {plural(len(done), 'step')}; what it wrote down",),
    )
    pid = head.get("pid")
    return record, pid if isinstance(pid, int) else 0


def settle_journals(folder: Path) -> None:
    """Make a record of each journal in `folder` that a killed round left, where there is room; to
    be called under the lock of the rounds, when nobody writes one."""
    for path in find_journals(folder):
        with suppress(StorageError, OSError):
            if path.stat().st_size:
                record, _ = read_journal(path)
                record.write(free_name(folder, path.stem, ".json"))
            path.unlink()


def find_journals(folder: Path) -> list[Path]:
    """Return the journals in `folder`, the oldest first by name."""
    return sorted(path for path in folder.glob(f"maintenance_*{SUFFIX}") if path.is_file())
