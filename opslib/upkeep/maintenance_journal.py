"""What a maintenance round does, written down line by line while it does it.

A round that ends keeps its record, and the journal goes. One that was killed leaves the journal:
which steps were done, and which one was under way; the next round makes a record of it. On a full
disk the lines wait until there is room for them; they never hold up what makes that room.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from opslib.core.errors import StorageError, storage_errors
from opslib.core.formatting import plural
from opslib.core.ownership import give_to_folders_owner, make_folder
from opslib.core.plans import Action
from opslib.upkeep.gzip_logs import free_name
from opslib.upkeep.maintenance_record import DoneItem, MaintenanceRecord, SkippedItem, make_record
from opslib.upkeep.rounds import Round

SUFFIX = ".jsonl"
_UNDER_WAY = "the round ended while it did this; a later one finishes it"


class Journal:
    """The account of one round under way; see `core.plans.Account`.

    Args:
        path: where it is written; made with the first step.
        duties: which duty a step belongs to, by its identity.
    """

    def __init__(self, path: Path, this: Round, duties: Mapping[int, str]) -> None:
        self.path = path
        self.done: list[DoneItem] = []
        self.skipped: list[SkippedItem] = []
        self._this, self._duties = this, duties
        self._descriptor: int | None = None
        self._waiting = b""
        head = {"pid": os.getpid(), "started_at_utc": this.now.isoformat(timespec="seconds")}
        self._head = {**head, "exp_dir": str(this.config.exp_dir)}
        self._under_way: Action | None = None

    def begin(self, step: Action) -> None:
        """Write down that a step begins."""
        if self._head:
            self._write({"round": self._head})
            self._head = {}
        self._under_way = step
        self._write({"begin": {"duty": self._duties[id(step)], "target": step.target}})

    def end(self, step: Action, skipped: str | None) -> None:
        """Write down that the step was done, or why it was skipped."""
        self._under_way = None
        duty = self._duties[id(step)]
        if skipped is not None:
            self.skip(SkippedItem(duty=duty, target=step.target, reason=skipped))
            return
        freed = self._this.freed_bytes.get(step.target, 0)
        item = DoneItem(
            duty=duty, verb=step.verb, target=step.target, why=step.why, freed_bytes=freed
        )
        self.done.append(item)
        self._write({"done": item.model_dump()})

    def skip(self, item: SkippedItem) -> None:
        """Write down that something was left alone."""
        self.skipped.append(item)
        self._write({"skipped": item.model_dump()})

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

    def _write(self, line: Mapping[str, Any]) -> None:
        self._waiting += json.dumps(line).encode() + b"\n"
        with suppress(OSError):  # no room: later
            if self._descriptor is None:
                make_folder(self.path.parent)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                self._descriptor = os.open(self.path, flags, 0o644)
                give_to_folders_owner(self._descriptor, self.path.parent)
            while self._waiting:
                self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]


def read_journal(path: Path) -> tuple[MaintenanceRecord, int]:
    """Return what a round that left its journal did, as a record, and the process that it was.

    A line that was cut off, or is none of ours, is left out.

    Raises:
        StorageError: it cannot be read.
    """
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
    record = make_record(
        done,
        started_at_utc=str(head.get("started_at_utc") or _written_at(path)),
        took_s=0.0,
        exp_dir=str(head.get("exp_dir", "")),
        skipped=tuple(skipped),
        warnings=(f"the round was killed after {plural(len(done), 'step')}; what it wrote down",),
    )
    pid = head.get("pid")
    return record, pid if isinstance(pid, int) else 0


def settle_journals(folder: Path) -> None:
    """Make a record of each journal in `folder` that a killed round left, where there is room.

    Must be called under the lock of the rounds: nobody writes one then.
    """
    for path in find_journals(folder):
        with suppress(StorageError, OSError):
            if path.stat().st_size:
                record, _ = read_journal(path)
                record.write(free_name(folder, path.stem, ".json"))
            path.unlink()


def find_journals(folder: Path) -> list[Path]:
    """Return the journals in `folder`, the oldest first by name."""
    return sorted(path for path in folder.glob(f"maintenance_*{SUFFIX}") if path.is_file())


def _written_at(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, tz=UTC).isoformat(timespec="seconds")
