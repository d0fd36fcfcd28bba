"""Earlier runs of the checklist: since when an item is as it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from opslib.core.clock import is_ahead, parse_moment
from opslib.core.config import Config
from opslib.core.errors import InputError

if TYPE_CHECKING:
    from opslib.ops.checklist.items import Item
    from opslib.ops.checklist.record import ChecklistRecord

PATTERN = "checklist_*.json"
MAX_RUNS = 14


def read_checklists(
    config: Config, limit: int = MAX_RUNS, *, now: datetime | None = None
) -> list[ChecklistRecord]:
    """Return the last `limit` kept checklists of any period, the oldest first; what is no
    checklist of this version, or is dated after now, is passed over."""
    from opslib.ops.checklist.record import ChecklistRecord

    found: list[ChecklistRecord] = []
    paths = config.records_dir.glob(PATTERN)
    for path in sorted(paths, key=lambda one: one.stem.split("_")[-1], reverse=True):
        if len(found) == limit:
            break
        try:
            record = ChecklistRecord.read(path)
        except InputError:
            continue
        if not is_ahead(parse_moment(record.lineage.created_at_utc), now):
            found.append(record)
    return sorted(found, key=lambda record: record.lineage.created_at_utc)


def find_since(item: Item, earlier: Sequence[ChecklistRecord]) -> str | None:
    """Return when the item was first found in the state it is in, without a change since, or
    None where it is so for the first time.

    Args:
        earlier: the runs before, the oldest first; those without this item say nothing.
    """
    since = None
    for record in reversed(earlier):
        before = record.item(item.name)
        if before is None:
            continue
        if before.state != item.state:
            break
        since = record.lineage.created_at_utc
    return since
