"""A column is said once: the tables of a terminal, a page and a document are derived from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from rich.table import Table
from rich.text import Text

from opslib.telling.doors import plain_cells

if TYPE_CHECKING:
    from pandas import DataFrame

Place = Literal["terminal", "page", "document"]
TERMINAL: frozenset[Place] = frozenset({"terminal"})
PAGE: frozenset[Place] = frozenset({"page"})
DOCUMENT: frozenset[Place] = frozenset({"document"})
MISSING = "–"
_WORD_FIRST = re.compile(r"\A[a-z]+(?=[ ,-]|$)")

R = TypeVar("R")
DocumentTable = tuple[list[str], list[list[str]]]


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column of a table. `name`: its heading. `get`: takes a row and returns the value in it,
    None where there is none. `format`: makes text of a value. A page gets numbers as numbers and
    formats them itself. `right`: whether a terminal shows it to the right, as numbers are. `where`:
    the places that show it."""

    name: str
    get: Callable[[R], Any]
    format: Callable[[Any], str] = str
    right: bool = False
    where: Set[Place] = TERMINAL | PAGE | DOCUMENT

    def text(self, row: R) -> str:
        """Return a row's value as text, a dash where there is none."""
        value = self.get(row)
        return MISSING if value is None else self.format(value)

    def value(self, row: R) -> Any:
        """Return a row's value as a number, else as text, None where there is none."""
        value = self.get(row)
        return value if value is None or isinstance(value, int | float) else self.format(value)


def terminal_table(
    columns: Iterable[Column[R]], rows: Iterable[R], caption: str = "", **look: Any
) -> Table:
    """Return the columns that a terminal shows as its table; `look` is of `rich.table.Table`."""
    shown = [one for one in columns if "terminal" in one.where]
    below = Text(caption, style="table.caption") if caption else None
    table = Table(caption=below, caption_justify="left", pad_edge=False, **look)
    for one in shown:
        table.add_column(one.name, justify="right" if one.right else "left")
    for row in rows:
        table.add_row(*plain_cells(one.text(row) for one in shown))
    return table


def page_table(columns: Iterable[Column[R]], rows: Iterable[R]) -> DataFrame:
    """Return the columns that a page shows as a frame for `show_table`."""
    import pandas as pd

    shown = [one for one in columns if "page" in one.where]
    cells = [[one.value(row) for one in shown] for row in rows]
    return pd.DataFrame(cells, columns=[one.name for one in shown], dtype=object)


def page_of(
    columns: Iterable[Column[R]] | Callable[[Any], Iterable[Column[R]]],
    rows: Callable[[Any], Iterable[R]],
) -> Callable[[Any], DataFrame]:
    """Return what makes a page's frame of a record, from its columns and its rows."""
    return lambda record: page_table(
        columns(record) if callable(columns) else columns, rows(record)
    )


def document_table(columns: Sequence[Column[R]], rows: Iterable[R]) -> DocumentTable:
    """Return the headings and the rows of text of the columns that a document shows."""
    shown = [one for one in columns if "document" in one.where]
    headings = [_WORD_FIRST.sub(lambda word: word[0].capitalize(), one.name) for one in shown]
    return headings, [[one.text(row) for one in shown] for row in rows]
