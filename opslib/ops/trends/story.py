"""The trends told to people: tables, the lines that changed their level, and key figures."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from opslib.core.language import tr
from opslib.ops.trends.columns import STEP_COLUMNS, TREND_COLUMNS, list_steps
from opslib.ops.trends.record import TrendRow, TrendsRecord
from opslib.telling.columns import page_table
from opslib.telling.scraps import publish, publish_outcome
from opslib.telling.themes import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

MOST_DRAWN = 6


def trend_frame(record: TrendsRecord) -> DataFrame:
    """Return every figure with its newest value and its last step as a table."""
    return page_table(TREND_COLUMNS, record.rows)


def step_frame(record: TrendsRecord) -> DataFrame:
    """Return every step as a table, the newest first."""
    return page_table(STEP_COLUMNS, list_steps(record))


def draw_steps(record: TrendsRecord, theme: Theme) -> Figure | None:
    """Draw the figures that changed their level last, run after run, with the level of each
    stretch; None where no level changed."""
    import matplotlib.pyplot as plt

    shown = _stepped(record)
    if not shown:
        return None
    figure, grid = plt.subplots(len(shown), 1, figsize=(8.8, 2.2 * len(shown)), squeeze=False)
    for axes, row in zip(grid[:, 0], shown, strict=True):
        axes.plot(row.values, marker=".", color=theme.series[0], linewidth=0.9)
        places = [step.at for step in row.steps]
        levels = [row.steps[0].before, *(step.after for step in row.steps)]
        for (start, end), level in zip(
            pairwise([0, *places, len(row.values)]), levels, strict=True
        ):
            axes.hlines(level, start, end - 1, color=theme.series[1], linewidth=2)
        axes.set_title(row.name)
        axes.set_ylabel(row.unit or "")
        axes.set_xticks([0, *places], [row.days[0], *(step.day for step in row.steps)])
    return figure


def describe_steps(record: TrendsRecord) -> str:
    """Return what `draw_steps` shows, in words."""
    told = [
        f"{row.name}: " + ", ".join(f"{step.change} on {step.day}" for step in row.steps)
        for row in _stepped(record)
    ]
    if not told:
        return "No figure changed its level."
    return "Figures whose level changed, run after run. " + "; ".join(told) + "."


def publish_trends(record: TrendsRecord, path: Path) -> None:
    """Publish the verdict and how many steps there are as scraps."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    recent = [step for row in record.rows for step in row.recent]
    publish("figures", len(record.rows), label=tr("Figures with a trend"))
    publish("steps_worse", sum(not step.better for step in recent), label=tr("Steps for the worse"))
    publish("steps_better", sum(step.better for step in recent), label=tr("Steps for the better"))


def _stepped(record: TrendsRecord) -> list[TrendRow]:
    rows = [row for row in record.rows if row.steps]
    return sorted(rows, key=lambda row: row.steps[-1].day, reverse=True)[:MOST_DRAWN]
