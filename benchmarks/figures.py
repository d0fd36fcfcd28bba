"""The table that a benchmark ends with: figures, their bounds, and whether each held."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

WIDTH = 130
_WORDS = {True: "yes", False: "no", None: "not tried"}


@dataclass(frozen=True)
class Row:
    """One figure with its bound; `held` is None for what could not be tried here."""

    what: str
    value: str
    bound: str
    held: bool | None


def show_rows(title: str, rows: Sequence[Row]) -> int:
    """Print the figures; return the exit code: 0, or 3 where one is out of its bound."""
    table = Table(title=title)
    for name in ("figure", "measured", "bound", "held"):
        table.add_column(name)
    for row in rows:
        table.add_row(row.what, row.value, row.bound, _WORDS[row.held])
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
    return 3 if any(row.held is False for row in rows) else 0
