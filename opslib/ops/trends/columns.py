"""The columns of the trends and of their steps."""

from collections.abc import Iterable
from typing import NamedTuple

from opslib.ops.trends.record import TrendRow, TrendsRecord, TrendStep
from opslib.telling.columns import PAGE, Column
from opslib.telling.figures import format_number


class Told(NamedTuple):
    """A step and the figure whose level it changed."""

    row: TrendRow
    step: TrendStep


TREND_COLUMNS: tuple[Column[TrendRow], ...] = (
    Column("figure", lambda row: row.label),
    Column("notebook", lambda row: row.notebook),
    Column("host", lambda row: row.host),
    Column("runs", lambda row: len(row.values), right=True),
    Column("newest", lambda row: _with_unit(row.values[-1], row), right=True),
    Column("last step", lambda row: _last_step(row)),
)
STEP_COLUMNS: tuple[Column[Told], ...] = (
    Column("day", lambda told: told.step.day),
    Column("figure", lambda told: told.row.name),
    Column("change", lambda told: told.step.change, right=True),
    Column("is", lambda told: "better" if told.step.better else "worse"),
    Column("level", lambda told: _levels(told), where=PAGE),
    Column("what changed", lambda told: "; ".join(told.step.changed), where=PAGE),
)


def list_steps(record: TrendsRecord) -> list[Told]:
    """Return all steps, the newest first."""
    steps: Iterable[Told] = (Told(row, step) for row in record.rows for step in row.steps)
    return sorted(steps, key=lambda told: told.step.day, reverse=True)


def _with_unit(value: float, row: TrendRow) -> str:
    return f"{format_number(value)} {row.unit or ''}".strip()


def _levels(told: Told) -> str:
    return f"{format_number(told.step.before)} → {_with_unit(told.step.after, told.row)}"


def _last_step(row: TrendRow) -> str:
    if not row.steps:
        return "none" if row.can_tell else "too few runs"
    return f"{row.steps[-1].change} on {row.steps[-1].day}"
