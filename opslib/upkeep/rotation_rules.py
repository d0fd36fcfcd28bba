"""When a log is rotated, what its archive is called and which archives go: pure functions.

The same rules stand in `scripts/rotate_logs.ps1`; `tests/cases/rotation.json` holds both to them.
"""

import re
from collections.abc import Iterable
from typing import Literal

from opslib.core.upkeep_sections import RotateSection

MEBIBYTE = 1 << 20

Due = Literal["size", "age", ""]


def find_due(size_bytes: int, age_days: float, limits: RotateSection) -> Due:
    """Return why a log is rotated now, or an empty text; an empty log never is."""
    if size_bytes == 0:
        return ""
    if size_bytes >= limits.max_mb * MEBIBYTE:
        return "size"
    return "age" if age_days >= limits.max_days else ""


def name_archive(log: str, day: str, taken: Iterable[str]) -> str:
    """Return the name of an archive made on `day`: the first of a day has no number, the next is
    `-2`; a number is never used again while a later one is there."""
    numbers = [order[1] for name in taken if (order := _find_order(name, log)) and order[0] == day]
    last = max(numbers, default=0)
    return f"{log}.{day}-{last + 1}.gz" if last else f"{log}.{day}.gz"


def find_surplus(log: str, names: Iterable[str], keep: int) -> list[str]:
    """Return the archives to delete, the oldest first: all but the newest `keep`, as their names
    tell; files that are no archives of `log` are never among them."""
    orders = sorted((order, name) for name in names if (order := _find_order(name, log)))
    return [name for _, name in orders[: max(len(orders) - keep, 0)]]


def is_set_aside(name: str, log: str) -> bool:
    """Return whether a file holds what was in `log`, waiting to become its archive."""
    return _find_order(f"{name}.gz", log) is not None


def _find_order(name: str, log: str) -> tuple[str, int] | None:
    """The day and the number within the day of an archive, or None for any other file."""
    found = re.fullmatch(re.escape(log) + r"\.([0-9]{8})(?:-([0-9]{1,6}))?\.gz", name)
    return (found[1], int(found[2] or 1)) if found else None
