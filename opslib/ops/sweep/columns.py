"""The columns of a sweep: of its rows, of its axes, and of the rows that were not timed."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from opslib.core.formatting import format_ms
from opslib.ops.sweep.record import SweepRecord, SweepRow, TriedRow
from opslib.ops.sweep.rows import follow
from opslib.telling.columns import DOCUMENT, PAGE, TERMINAL, Column, DocumentTable, document_table

_SCREENS = TERMINAL | PAGE


class Axis(NamedTuple):
    """What one option's value does, all else at its default, by batch size."""

    option: str
    value: str
    effects: dict[int, str]


class Untimed(NamedTuple):
    """Requested rows that were not timed themselves, for the same reason."""

    batch_size: int
    status: str
    same_as: str | None
    numbers: list[int]


def row_columns(record: SweepRecord) -> list[Column[SweepRow]]:
    """Return the columns of a sweep's rows."""
    return [
        Column("model", lambda _: record.model.name, where=DOCUMENT),
        Column("row", lambda row: row.number, right=True, where=_SCREENS),
        Column("batch", lambda row: row.batch_size, right=True),
        Column("settings", lambda row: row.options.label),
        Column("on", lambda row: row.provider),
        Column("p50 ms", lambda row: row.p50_ms, format_ms, right=True),
        Column("img/s", lambda row: row.throughput_img_s, "{:,.0f}".format, right=True),
        Column("× default (95 %)", speedup_text, right=True),
        Column("rounds", lambda row: len(row.raw_ms), where=PAGE),
        Column("status", lambda row: _status(record, row)),
    ]


def axis_columns(record: SweepRecord) -> list[Column[Axis]]:
    """Return the columns of `list_axes`, one for each batch size."""

    def effect_at(size: int) -> Column[Axis]:
        return Column(f"batch {size}", lambda axis: axis.effects.get(size))

    return [
        Column("option", lambda axis: axis.option.removeprefix("cuda.")),
        Column("value", lambda axis: axis.value),
        *map(effect_at, dict.fromkeys(one.batch_size for one in record.axes)),
    ]


UNTIMED_COLUMNS: tuple[Column[Untimed], ...] = (
    Column("batch", lambda group: group.batch_size),
    Column("status", lambda group: group.status),
    Column("which is", lambda group: group.same_as),
    Column("rows", lambda group: join_ranges(group.numbers)),
    Column("count", lambda group: len(group.numbers)),
)


def list_axes(record: SweepRecord) -> list[Axis]:
    """Return what each option's value does."""
    effects: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for one in record.axes:
        effects[one.axis, one.value][one.batch_size] = one.effect
    return [Axis(*axis, at) for axis, at in effects.items()]


def list_untimed(record: SweepRecord) -> list[Untimed]:
    """Return the requested rows that were not timed themselves, grouped by why."""
    groups: dict[tuple[int, str, str | None], list[int]] = defaultdict(list)
    for row in record.rows:
        if not row.has_figure:
            twin = follow(record.rows, row)
            same_as = None if twin is row else twin.options.label
            groups[row.batch_size, row.status, same_as].append(row.number)
    return [Untimed(*why, numbers) for why, numbers in groups.items()]


def list_timed(record: SweepRecord) -> list[SweepRow]:
    """Return the rows with a figure, fastest first within each batch size."""
    timed = [row for row in record.rows if row.has_figure]
    return sorted(timed, key=lambda row: (row.batch_size, row.p50_ms or 0.0))


def snapshot(record: SweepRecord) -> DocumentTable:
    """Return the table of what was not dropped in the first rounds."""
    kept = [row for row in list_timed(record) if row.outcome == "measured"]
    return document_table(row_columns(record), kept)


def speedup_text(row: TriedRow) -> str:
    """Return a row's speed against the default's with its interval: `1.25 (1.24 to 1.26)`."""
    low, high = row.speedup_ci95 or (0.0, 0.0)
    interval = f" ({low:.2f} to {high:.2f})" if low != high else ""
    return f"{row.speedup or 0:.2f}{interval}"


def join_ranges(numbers: Sequence[int]) -> str:
    """Return `3–6, 9` for 3, 4, 5, 6 and 9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in parts)


def _status(record: SweepRecord, row: SweepRow) -> str:
    roles = {"recommended": record.recommended, "fastest": record.best}
    marks = [mark for mark, chosen in roles.items() if chosen and chosen.row == row.number]
    if row.tied_with_best and not marks:
        alone = any(batch.tie_set == (row.number,) for batch in record.batches)
        marks.append("fastest at this batch" if alone else "tied with the fastest")
    return ", ".join(marks) or row.status
