"""The figure of the release store: when each release was made, and when it was last proved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from opslib.core.formatting import plural
from opslib.ops.release.coverage import CoverageRow
from opslib.ops.release.proofs import Proof, Standing
from opslib.telling.themes import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SHOWN = 20
BAD = ("never proved", "failed")


def draw_history(rows: Sequence[CoverageRow], theme: Theme) -> Figure | None:
    """Draw, by release, when it was made, each restore test, and how the last one ended; None
    where there is no release."""
    if not rows:
        return None
    import matplotlib.pyplot as plt
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    shown = rows[:MAX_SHOWN]
    figure, axes = plt.subplots(figsize=(8.8, 1.5 + 0.42 * max(1, len(shown))))
    for at, row in enumerate(shown):
        _draw_row(axes, at, row, theme)
    axes.set_yticks(range(len(shown)), [_short_name(row.stored.name) for row in shown])
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
    _add_legend(axes, theme)
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


def _draw_row(axes: Axes, at: int, row: CoverageRow, theme: Theme) -> None:
    made = _moment(row.stored.released_at_utc)
    dated = ((_moment(one.proved_at_utc), one) for one in row.proofs)
    tests = [(moment, one) for moment, one in dated if moment is not None]
    moments = [*([made] if made is not None else []), *(moment for moment, _ in tests)]
    if len(moments) > 1:
        axes.plot([min(moments), max(moments)], [at, at], color=theme.grid, zorder=1)
    if made is not None:
        axes.plot([made], [at], "o", mfc=theme.surface, mec=theme.muted, mew=1.5, ms=11, zorder=2)
    for moment, proof in tests:
        marker, colour, size = _mark(proof, theme)
        axes.plot([moment], [at], marker, color=colour, ms=size, mew=2, zorder=3)
    if row.standing in BAD and moments:
        axes.annotate(
            row.standing,
            (max(moments), at),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=theme.worse,
        )


def _mark(proof: Proof, theme: Theme) -> tuple[str, str, float]:
    if proof.verdict == "fail":
        return "x", theme.worse, 7.0
    return ("o", theme.better, 7.0) if proof.verdict == "pass" else ("D", theme.neutral, 5.5)


def _add_legend(axes: Axes, theme: Theme) -> None:
    axes.plot([], [], "o", mfc=theme.surface, mec=theme.muted, mew=1.5, ms=11, label="made")
    axes.plot([], [], "o", color=theme.better, ms=7, label="proved")
    axes.plot([], [], "x", color=theme.worse, ms=7, mew=2, label="failed")
    axes.plot([], [], "D", color=theme.neutral, ms=5.5, label="restored, nothing to ask")
    axes.figure.legend(loc="outside lower center", ncols=4)


def _title(rows: Sequence[CoverageRow]) -> str:
    counts = Counter(row.standing for row in rows)
    bad: tuple[Standing, ...] = ("failed", "never proved", "not asked")
    parts = [f"{counts[word]} {word}" for word in bad if counts[word]]
    return ", ".join([plural(len(rows), "release"), *(parts or ["all proved"])])


def _short_name(name: str) -> str:
    return name.removeprefix("release-")


def _moment(text: str | None) -> float | None:
    """A time as matplotlib counts it, in days since 1970."""
    try:
        return datetime.fromisoformat(text).timestamp() / 86_400 if text else None
    except ValueError:
        return None
