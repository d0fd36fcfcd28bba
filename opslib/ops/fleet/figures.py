"""The figures of the fleet: each host beside its like, and what each was known to serve when."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from opslib.core.clock import parse_moment
from opslib.core.formatting import plural
from opslib.ops.fleet.columns import pick_groups, shown_name, signed, sort_rows
from opslib.ops.fleet.record import FleetRecord, LikeGroup, Measure, Outcome, Served
from opslib.telling.themes import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MODELS = 5
FARTHEST_PCT = 60.0
ROW_INCHES = 0.42
DAY_S = 86_400.0
MARKS: tuple[tuple[Measure, str, float, str], ...] = (
    ("latency", "o", 0.14, "latency"),
    ("ratio", "D", -0.14, "ratio to the reference network"),
)


def draw_speeds(record: FleetRecord, theme: Theme) -> Figure | None:
    """Draw how far each host lies above or below its like, with intervals; None where none was
    held beside another."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    groups = pick_groups(record)
    if not groups:
        return None
    heights = [len(group.rows) + 1.6 for group in groups]
    size = (8.8, ROW_INCHES * sum(heights) + 0.9)
    figure, grid = plt.subplots(
        len(groups), 1, figsize=size, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    layout: Any = figure.get_layout_engine()
    layout.set(hspace=0.06)
    for axes, group in zip(grid[:, 0], groups, strict=True):
        _draw_group(axes, group, theme)
    grid[-1, 0].set_xlabel("percent slower (right) or faster (left) than its like")
    handles = [
        Line2D([], [], marker=mark, linestyle="", color=theme.neutral, label=label, markersize=6)
        for name, mark, _, label in MARKS
        if any(row.measure(name) for group in groups for row in group.rows)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return figure


def describe_speeds(record: FleetRecord) -> str:
    """Return what `draw_speeds` shows, in words."""
    told = []
    for group in pick_groups(record):
        rows = [
            f"{row.host} {signed(one.difference_pct)}"
            for row in group.rows
            if (one := row.measure("latency") or row.measure("ratio"))
        ]
        if rows:
            told.append(f"{group.hardware}, {group.what}: {', '.join(rows)}")
    if not told:
        return "No host was held beside another one like it."
    return "How much slower each host is than its like. " + ". ".join(told) + "."


def draw_served(record: FleetRecord, theme: Theme) -> Figure | None:
    """Draw which model each host was known to serve when; None where no record tells."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    lanes = _list_lanes(record)
    now = parse_moment(record.lineage.created_at_utc)
    if not lanes or now is None:
        return None
    colours = _pick_colours(lanes, theme)
    figure, axes = plt.subplots(figsize=(8.8, ROW_INCHES * len(lanes) + 1.5))

    def days(utc: str) -> float:
        return ((parse_moment(utc) or now) - now).total_seconds() / DAY_S

    start = min(days(one.first_utc) for _, served in lanes for one in served)
    room = max(-start * 0.012, 1 / 1440)
    for at, (_, served) in enumerate(lanes):
        for one in served:
            span = [days(one.first_utc), days(one.last_utc) + room]
            axes.plot(
                span, [at, at], color=colours[shown_name(one)], linewidth=9, solid_capstyle="butt"
            )
        last, colour = days(served[-1].last_utc) + room, colours[shown_name(served[-1])]
        if last < -room:
            axes.plot([last, 0], [at, at], color=colour, linewidth=1.6, linestyle=":")
    axes.set_yticks(range(len(lanes)), [label for label, _ in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(start - room, 2 * room)
    ticks = [tick for tick in axes.get_xticks() if start - room <= tick <= 2 * room]
    dates = [(now + timedelta(days=float(tick))).strftime("%b %d") for tick in ticks]
    axes.set_xticks(ticks, dates)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.tick_params(length=0)
    handles = [
        Line2D([], [], color=colour, linewidth=6, label=name)
        for name, colour in dict(sorted(colours.items(), reverse=True)).items()
        if colour != theme.neutral
    ]
    if theme.neutral in colours.values():
        handles.append(Line2D([], [], color=theme.neutral, linewidth=6, label="older ones"))
    handles.append(
        Line2D([], [], color=theme.muted, linewidth=1.6, linestyle=":", label="not heard since")
    )
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def describe_served(record: FleetRecord) -> str:
    """Return what `draw_served` shows, in words."""
    lanes = _list_lanes(record)
    if not lanes:
        return "No record tells which model a host serves."
    told = [
        f"{label}: {shown_name(served[-1])} as of {served[-1].last_utc[:10]}"
        for label, served in lanes
    ]
    return f"What {plural(len(lanes), 'host')} were last known to serve. " + "; ".join(told) + "."


def _draw_group(axes: Any, group: LikeGroup, theme: Theme) -> None:
    colours: dict[Outcome, str] = {
        "slower": theme.worse,
        "faster": theme.better,
        "alike": theme.neutral,
    }
    farthest = 3.0
    rows = sort_rows(group)
    for at, row in enumerate(rows):
        for name, mark, offset, _ in MARKS:
            one = row.measure(name)
            if one is None:
                continue
            low, high = (max(-FARTHEST_PCT, min(FARTHEST_PCT, end)) for end in one.interval_pct)
            colour = colours[one.outcome]
            axes.plot([low, high], [at - offset] * 2, color=colour, linewidth=2.2, alpha=0.75)
            shown = max(-FARTHEST_PCT, min(FARTHEST_PCT, one.difference_pct))
            axes.plot([shown], [at - offset], marker=mark, color=colour, markersize=6.5)
            farthest = max(farthest, -low, high)
        if row.outcome != "alike":
            most = max(
                row.measures, key=lambda one: (one.outcome == row.outcome, abs(one.difference_pct))
            )
            axes.annotate(
                f"{row.outcome}: {signed(most.difference_pct)}",
                (1.0, at),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                color=colours[row.outcome],
                fontweight="bold",
            )
    axes.axvline(0, color=theme.muted, linewidth=1)
    axes.set_xlim(-1.08 * farthest, 1.5 * farthest)
    axes.set_ylim(len(group.rows) - 0.45, -0.55)
    axes.set_yticks(range(len(group.rows)), [row.host for row in rows])
    axes.tick_params(length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.set_title(f"{group.what} · {group.hardware}")


def _list_lanes(record: FleetRecord) -> list[tuple[str, list[Served]]]:
    """What each host served, one lane for each of its kinds, the oldest first."""
    lanes = []
    for host, served in record.history.items():
        ordered = sorted(served, key=lambda one: (one.kind, one.first_utc))
        kinds = {kind: list(some) for kind, some in groupby(ordered, key=lambda one: one.kind)}
        for kind, some in kinds.items():
            lanes.append((host if len(kinds) == 1 else f"{host}, {kind}", some))
    return lanes


def _pick_colours(lanes: list[tuple[str, list[Served]]], theme: Theme) -> dict[str, str]:
    """A colour for each model, the newest ones first; the older ones share one."""
    served = (one for _, known in lanes for one in known)
    latest = sorted(served, key=lambda one: one.last_utc, reverse=True)
    models = {shown_name(one): one.newer for one in latest}
    ordered = sorted(models, key=lambda name: models[name])
    return {
        name: theme.series[at] if at < MOST_MODELS else theme.neutral
        for at, name in enumerate(ordered)
    }
