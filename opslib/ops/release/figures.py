"""The figure of the release store: when each release was made, and when it was last proved."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from opslib.core.clock import parse_moment
from opslib.core.formatting import plural
from opslib.ops.release.record import Standing
from opslib.ops.release.report import CoverageRow
from opslib.telling.themes import Theme

MAX_SHOWN = 20
BAD = ("never proved", "failed")
_TITLED: tuple[Standing, ...] = ("failed", "never proved", "not asked")


def draw_history(rows: Sequence[CoverageRow], theme: Theme) -> Figure | None:
    """Draw, by release, when it was made, each restore test, and how the last one ended; None
    where there is no release."""
    if not rows:
        return None
    shown = rows[:MAX_SHOWN]
    figure, axes = plt.subplots(figsize=(8.8, 1.5 + 0.42 * max(1, len(shown))))
    marks = _choose_marks(theme)
    for at, row in enumerate(shown):
        _draw_row(axes, at, row, theme, marks)
    for named, style in marks.values():
        axes.plot([], [], label=named, **style)
    axes.figure.legend(loc="outside lower center", ncols=len(marks))
    names = [row.stored.name.removeprefix("release-") for row in shown]
    axes.set_yticks(range(len(shown)), names)
    for label, row in zip(axes.get_yticklabels(), shown, strict=True):
        if row.standing in BAD:
            label.set_color(theme.worse)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.xaxis_date("UTC")
    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, "UTC")  # type: ignore[no-untyped-call]
    formatter.formats = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
    formatter.zero_formats = ["", "%Y", "%b", "%d %b", "%H:%M", "%H:%M"]
    axes.xaxis.set_major_formatter(formatter)
    axes.margins(x=0.12)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_title(_title(rows))
    return figure


def describe_history(rows: Sequence[CoverageRow]) -> str:
    """Return what `draw_history` shows, in words."""
    parts = []
    for row in rows[:MAX_SHOWN]:
        last = f" on {row.last.proved_at_utc[:10]}" if row.last else ""
        parts.append(f"{row.stored.name}: {row.standing}{last}")
    if not parts:
        return "No history: there is no release yet."
    more = f"; {len(rows) - MAX_SHOWN} older ones not drawn" if len(rows) > MAX_SHOWN else ""
    return f"When each release was made and proved to restore. {'; '.join(parts)}{more}."


def _choose_marks(theme: Theme) -> dict[str, tuple[str, dict[str, Any]]]:
    made = {"mfc": theme.surface, "mec": theme.muted, "mew": 1.5, "ms": 11, "zorder": 2}
    test = {"ls": "none", "mew": 2, "ms": 7, "zorder": 3}
    unasked = {"color": theme.neutral, "ms": 5.5}
    return {
        "made": ("made", {"marker": "o", "ls": "none", **made}),
        "pass": ("proved", {**test, "marker": "o", "color": theme.better}),
        "fail": ("failed", {**test, "marker": "x", "color": theme.worse}),
        "inconclusive": ("restored, nothing to ask", {**test, "marker": "D", **unasked}),
    }


def _draw_row(
    axes: Axes, at: int, row: CoverageRow, theme: Theme, marks: dict[str, tuple[str, Any]]
) -> None:
    dated = [("made", _moment(row.stored.released_at_utc))]
    dated += [(one.verdict, _moment(one.proved_at_utc)) for one in row.proofs]
    events = [(what, moment) for what, moment in dated if moment is not None]
    if not events:
        return
    first, last = (pick(moment for _, moment in events) for pick in (min, max))
    axes.plot([first, last], [at, at], color=theme.grid, zorder=1)
    for what, moment in events:
        axes.plot([moment], [at], **marks[what][1])
    if row.standing in BAD:
        beside: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(row.standing, (last, at), color=theme.worse, fontsize=9, **beside)


def _title(rows: Sequence[CoverageRow]) -> str:
    counts = Counter(row.standing for row in rows)
    parts = [f"{counts[word]} {word}" for word in _TITLED if counts[word]]
    return ", ".join([plural(len(rows), "release"), *(parts or ["all proved"])])


def _moment(text: str | None) -> float | None:
    """A time as matplotlib counts it, in days since 1970."""
    moment = parse_moment(text or "")
    return moment.timestamp() / 86_400 if moment else None
