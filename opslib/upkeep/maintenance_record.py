"""What one maintenance round did, kept as `{exp_dir}/reports/maintenance_<UTC>.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from opslib.core.records import Part, Record


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
