"""The checklist's figures: disks over time, and how the items were lately."""

from collections.abc import Sequence
from datetime import datetime

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from opslib.core.formatting import format_bytes
from opslib.ops.checklist.items import DAY_S, DiskFacts, State
from opslib.ops.checklist.record import ChecklistRecord
from opslib.telling.themes import Theme

SIGNS: dict[State, str] = {"ok": "·", "attention": "!", "unknown": "?", "failed": "×"}


def draw_disks(disks: Sequence[DiskFacts], theme: Theme) -> Figure | None:
    """Draw how full each disk is; beside it how it came there, and where it leads. None where no
    disk could be read."""
    if not disks:
        return None
    size = (8.8, max(2.6, 1.0 + 0.55 * len(disks)))
    figure, (left, right) = plt.subplots(1, 2, figsize=size, width_ratios=(1, 1.5))
    for at, disk in enumerate(disks):
        colour = theme.series[at % 6]
        left.barh(disk.mount, 100.0, color=theme.grid, height=0.4)
        left.barh(disk.mount, disk.used_pct, color=colour, height=0.4)
        free = f"{disk.used_pct:.0f} %, {format_bytes(disk.free_bytes)} free"
        left.text(0, at + 0.28, free, color=theme.muted, fontsize=9, va="top")
        _draw_history(right, disk, colour)
    left.set_ylim(len(disks) - 0.6, -0.8)
    left.set_xlim(0, 100)
    left.grid(visible=False)
    left.set_title("Used now, %")
    right.set_title("Used over the last days, %")
    right.set_xlabel("days from now")
    right.legend(loc="best")
    return figure


def describe_disks(disks: Sequence[DiskFacts]) -> str:
    """Return what `draw_disks` shows, in words."""
    if not disks:
        return "No disk could be read."
    parts = (f"{d.mount}: {d.used_pct:.0f} % used, {d.trend}" for d in disks)
    return "How full the disks are, now and lately. " + "; ".join(parts) + "."


def draw_lately(runs: Sequence[ChecklistRecord], theme: Theme) -> Figure | None:
    """Draw the state of each item in each run, the oldest left: a colour and a sign each. None
    where no run has an item."""
    titles = list(dict.fromkeys(item.title for run in reversed(runs) for item in run.items))
    if not titles:
        return None
    colours: dict[State, str] = {
        "ok": theme.series[2],
        "attention": theme.series[4],
        "unknown": theme.series[5],
        "failed": theme.worse,
        "not applicable": theme.grid,
    }
    figure, axes = plt.subplots(figsize=(8.8, 1.1 + 0.3 * len(titles)))
    for x, run in enumerate(runs):
        for item in run.items:
            y = titles.index(item.title)
            axes.scatter(x, y, s=190, marker="s", color=colours[item.state])
            sign = SIGNS.get(item.state, "")
            axes.text(x, y, sign, color=theme.surface, ha="center", va="center", weight="bold")
    for state in dict.fromkeys(item.state for run in runs for item in run.items):
        label = f"{state} ({SIGNS[state]})" if state in SIGNS else state
        axes.scatter([], [], s=90, marker="s", color=colours[state], label=label)
    axes.set_yticks(range(len(titles)), titles)
    labels = [_day(run.lineage.created_at_utc) for run in runs]
    axes.set_xticks(range(len(runs)), labels, fontsize=8.5)
    axes.set_xlim(-0.6, len(runs) - 0.4)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.grid(visible=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_title(f"The last {len(runs)} runs")
    return figure


def describe_lately(runs: Sequence[ChecklistRecord]) -> str:
    """Return what `draw_lately` shows, in words."""
    if not any(run.items for run in runs):
        return "No item was checked in the last runs."
    parts = []
    for run in runs:
        named = [f"{i.title} {i.state}" for i in run.items if not i.is_quiet]
        when = _day(run.lineage.created_at_utc).replace("\n", " ")
        parts.append(f"{when}: {', '.join(named) or 'all ok'}")
    return "The items in the last runs of the checklist. " + "; ".join(parts) + "."


def _draw_history(axes: Axes, disk: DiskFacts, colour: str) -> None:
    if not disk.history:
        axes.plot([], [], color=colour, label=f"{disk.mount}: no reading yet")
        return
    whole = max(1, disk.used_bytes + disk.free_bytes)
    moments = [datetime.fromisoformat(point.at_utc) for point in disk.history]
    days = [(moment - moments[-1]).total_seconds() / DAY_S for moment in moments]
    shares = [100 * point.used_bytes / whole for point in disk.history]
    axes.plot(days, shares, color=colour, label=disk.mount, marker="o", markersize=3.5)
    if disk.growth_bytes_per_day is not None and days[0] < 0:
        ahead = min(-days[0], disk.days_until_full or -days[0])
        step = 100 * disk.growth_bytes_per_day / whole
        ends = [shares[-1], min(100.0, max(0.0, shares[-1] + step * ahead))]
        axes.plot([0, ahead], ends, color=colour, linestyle=":")


def _day(moment_utc: str) -> str:
    return moment_utc[5:16].replace("T", "\n")
