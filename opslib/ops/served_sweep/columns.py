"""The columns of a sweep of the service: of its rows, and of those that were not measured."""

from collections import defaultdict
from typing import NamedTuple

from opslib.core.formatting import format_ms
from opslib.ops.served_sweep.record import ServedRow, ServedSweepRecord
from opslib.ops.served_sweep.rows import figure_of
from opslib.ops.sweep.columns import join_ranges, speedup_text
from opslib.telling.columns import DOCUMENT, PAGE, TERMINAL, Column, DocumentTable, document_table

_SCREENS = TERMINAL | PAGE


class Unmeasured(NamedTuple):
    """Requested rows that were not measured themselves, for the same reason."""

    status: str
    numbers: list[int]


def row_columns(record: ServedSweepRecord) -> list[Column[ServedRow]]:
    """Return the columns of the rows; the figure is that of the objective."""
    figure = (
        Column[ServedRow]("requests/s", lambda row: row.rate_per_s, "{:,.0f}".format, right=True)
        if record.goal.objective == "throughput"
        else Column[ServedRow]("p99 ms (median)", lambda row: row.p99_ms, format_ms, right=True)
    )
    return [
        Column("model", lambda _: record.model.name, where=DOCUMENT),
        Column("row", lambda row: row.number, right=True, where=_SCREENS),
        Column("settings", lambda row: row.options.label),
        Column("on", lambda row: row.provider),
        figure,
        Column("× default (95 %)", speedup_text, right=True),
        Column("rounds", lambda row: len(row.raw_per_s or row.raw_p99_ms), where=PAGE),
        Column("status", lambda row: _status(record, row)),
    ]


UNMEASURED_COLUMNS: tuple[Column[Unmeasured], ...] = (
    Column("status", lambda group: group.status),
    Column("rows", lambda group: join_ranges(group.numbers)),
    Column("count", lambda group: len(group.numbers)),
)


def list_measured(record: ServedSweepRecord) -> list[ServedRow]:
    """Return the rows with a figure, the best first."""
    measured = [row for row in record.rows if row.has_figure]
    sign = -1 if record.goal.objective == "throughput" else 1
    return sorted(measured, key=lambda row: sign * (figure_of(row) or 0.0))


def list_unmeasured(record: ServedSweepRecord) -> list[Unmeasured]:
    """Return the requested rows without a figure of their own, grouped by why."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row in record.rows:
        if not row.has_figure:
            groups[row.status].append(row.number)
    return [Unmeasured(*group) for group in groups.items()]


def snapshot(record: ServedSweepRecord) -> DocumentTable:
    """Return the table of what was not dropped in the first rounds."""
    kept = [row for row in list_measured(record) if row.outcome == "measured"]
    return document_table(row_columns(record), kept)


def _status(record: ServedSweepRecord, row: ServedRow) -> str:
    roles = {"recommended": record.recommended, "best": record.best}
    marks = [mark for mark, chosen in roles.items() if chosen and chosen.row == row.number]
    if row.tied_with_best and not marks:
        marks.append("tied with the best")
    return ", ".join(marks) or row.status
