"""A column said once: what a terminal, a page and a document make of the same list."""

import io

from rich.console import Console

from opslib.telling.columns import (
    DOCUMENT,
    PAGE,
    TERMINAL,
    Column,
    document_table,
    page_table,
    terminal_table,
)

COLUMNS: tuple[Column[tuple[str, float | None]], ...] = (
    Column("name", lambda row: row[0]),
    Column("p50 ms", lambda row: row[1], "{:.1f}".format, right=True),
    Column("only printed", lambda _: "p", where=TERMINAL | DOCUMENT),
    Column("speed-up, batch 1", lambda _: "s", where=PAGE),
)
ROWS = [("[bold]a", 1.25), ("b", None)]


def test_a_terminal_shows_its_columns_as_text_and_nothing_as_markup() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(terminal_table(COLUMNS, ROWS, "below", box=None))
    assert isinstance(console.file, io.StringIO)
    head, first, second, below = console.file.getvalue().splitlines()
    assert head.split() == ["name", "p50", "ms", "only", "printed"]
    assert first.split() == ["[bold]a", "1.2", "p"]
    assert second.split() == ["b", "–", "p"]
    assert below.strip() == "below"


def test_a_page_gets_numbers_as_numbers_and_its_own_columns() -> None:
    frame = page_table(COLUMNS, ROWS)
    assert list(frame) == ["name", "p50 ms", "speed-up, batch 1"]
    assert frame.to_numpy().tolist() == [["[bold]a", 1.25, "s"], ["b", None, "s"]]
    assert list(page_table(COLUMNS, [])) == list(frame)


def test_a_document_gets_text_under_headings_that_begin_as_sentences_do() -> None:
    headings, rows = document_table(COLUMNS, ROWS)
    assert headings == ["Name", "p50 ms", "Only printed"]
    assert rows == [["[bold]a", "1.2", "p"], ["b", "–", "p"]]
