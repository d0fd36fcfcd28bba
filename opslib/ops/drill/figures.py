"""The figures of a rollback drill: its timeline, its latencies, the service's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opslib.core.formatting import format_ms
from opslib.ops.drill.record import DrillRecord, EventKind, Memory, RawRequests, WindowKind
from opslib.telling.themes import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LANES: tuple[tuple[EventKind, str], ...] = (
    ("swap", "swap"),
    ("rollback", "roll back"),
    ("leak", "look for leaks"),
    ("bad model", "bad model"),
    ("two at once", "two at once"),
    ("switch", "switch"),
    ("kill -9", "kill -9"),
    ("back", "back home"),
)
COMPARED: tuple[WindowKind, ...] = ("baseline", "A/A", "swaps and rollbacks")
MAX_POINTS = 2000
CURVE_POINTS = 200
TICKS_MS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000)


def draw_timeline(record: DrillRecord, theme: Theme) -> Figure | None:
    """Draw every request's latency over time, and below it every event in its lane; None where
    no single requests are kept."""
    import matplotlib.pyplot as plt

    if record.raw is None or not record.raw.due_s:
        return None
    lanes = [(kind, title) for kind, title in LANES if record.events_of(kind)]
    figure, (top, bottom) = plt.subplots(
        2,
        1,
        figsize=(8.8, 3.6 + 0.3 * len(lanes)),
        sharex=True,
        height_ratios=(3.1, 0.25 + 0.3 * len(lanes)),
    )
    _draw_requests(top, record, record.raw, theme)
    _draw_events(bottom, record, lanes, theme)
    for calm in record.calms:
        for axes in (top, bottom):
            axes.axvspan(calm.start_s, calm.end_s, color=theme.neutral, alpha=0.13, linewidth=0)
            axes.axvline(calm.start_s, color=theme.surface, linewidth=2)
        top.annotate(
            calm.kind,
            (calm.start_s, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -3),
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=theme.muted,
        )
    bottom.set_xlabel("seconds from the first request")
    return figure


def describe_timeline(record: DrillRecord) -> str:
    """Return what `draw_timeline` shows, in words."""
    if record.raw is None:
        return "No timeline: this record was slimmed, its single requests are gone."
    if not record.raw.due_s:
        return "No timeline: no request was measured."
    parts = []
    for kind, title in LANES:
        starts = [f"{event.start_s:.0f}" for event in record.events_of(kind)]
        if starts:
            more = " and later" if len(starts) > 12 else ""
            parts.append(f"{title} at {', '.join(starts[:12])}{more} s")
    return (
        f"Latency of {record.requests:,} requests over time with every event. "
        f"{'; '.join(parts) or 'Nothing was done to the service'}. "
        f"{record.failed} requests failed outside the kill, {record.failed_in_kill} in it."
    )


def draw_distribution(record: DrillRecord, theme: Theme) -> Figure | None:
    """Draw which share of the requests took longer than so many milliseconds, by window; None
    where no request of these windows is kept."""
    import matplotlib.pyplot as plt
    import numpy as np

    spread = {kind: np.sort(latencies_ms(record, kind)) for kind in COMPARED}
    if not any(map(len, spread.values())):
        return None
    figure, axes = plt.subplots(figsize=(8.8, 3.7))
    styles = {COMPARED[0]: (theme.neutral, "-"), COMPARED[1]: (theme.neutral, "--")}
    lowest = 1.0
    for kind, values in spread.items():
        if not len(values):
            continue
        shares = 1 - np.arange(len(values)) / len(values)
        lowest = min(lowest, 1 / len(values))
        from_top = np.unique(np.geomspace(1, len(values), CURVE_POINTS).round().astype(int))
        values, shares = values[-from_top[::-1]], shares[-from_top[::-1]]
        colour, line = styles.get(kind, (theme.series[0], "-"))
        axes.step(values, shares, where="pre", color=colour, linestyle=line, label=kind)
    axes.axhline(0.01, color=theme.muted, linewidth=1)
    base = record.window("baseline")
    if base is not None and base.p99_ms is not None:
        allowed = record.p99_ratio_max * base.p99_ms
        axes.axvline(allowed, color=theme.worse, linestyle=":", linewidth=1.6)
        look: dict[str, Any] = {"va": "bottom", "fontsize": 9, "color": theme.worse}
        text, where = f" {record.p99_ratio_max:g} × baseline's p99", axes.get_xaxis_transform()
        axes.text(allowed, 1.0, text, transform=where, **look)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(lowest / 1.5, 1.2)
    _set_ms_ticks(axes, "x")
    shares_shown = [share for share in (1, 0.5, 0.1, 0.01, 0.001, 0.0001) if share >= lowest / 1.5]
    axes.set_yticks(shares_shown, [f"{100 * share:g} %" for share in shares_shown])
    axes.minorticks_off()
    axes.set_xlabel("milliseconds")
    axes.set_title("Requests that took longer", pad=18)
    axes.legend(loc="lower left")
    return figure


def describe_distribution(record: DrillRecord) -> str:
    """Return what `draw_distribution` shows, in words."""
    if not any(len(latencies_ms(record, kind)) for kind in COMPARED):
        gone = "this record was slimmed" if record.raw is None else "none was measured"
        return f"No distribution of latencies: {gone}."
    parts = []
    for kind in COMPARED:
        window = record.window(kind)
        if window is not None:
            parts.append(
                f"{kind}: median {format_ms(window.p50_ms)} ms, p99 {format_ms(window.p99_ms)} ms, "
                f"worst {format_ms(window.worst_ms)} ms of {window.requests:,}"
            )
    return f"Distribution of latencies by window. {'; '.join(parts)}."


def draw_memory(record: DrillRecord, theme: Theme) -> Figure | None:
    """Draw the service's memory after each switch that looked for leaks (else each swap); None
    where it was not measured."""
    import matplotlib.pyplot as plt

    rows = _switches(record)
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(8.8, 2.6))
    values = [one.rss_bytes / 2**20 for one in rows]
    axes.plot([one.swap for one in rows], values, color=theme.series[0], marker=".")
    axes.set_ylim(0, max(values) * 1.15)
    axes.set_xlabel("switches")
    axes.set_ylabel("MiB")
    axes.set_title("Resident memory of the service")
    return figure


def describe_memory(record: DrillRecord) -> str:
    """Return what `draw_memory` shows, in words."""
    rows = _switches(record)
    if not rows:
        return "No memory was measured: the service is not a process of this drill."
    first, last = rows[0], rows[-1]
    return (
        f"Memory of the service: {first.rss_bytes / 2**20:.0f} MiB after switch {first.swap}, "
        f"{last.rss_bytes / 2**20:.0f} MiB after switch {last.swap}."
    )


def _switches(record: DrillRecord) -> list[Memory]:
    return [one for one in record.memory if one.during == "leak"] or list(record.memory)


def latencies_ms(record: DrillRecord, kind: WindowKind) -> Any:
    """Return the latencies of the good answers to requests that were due in windows of a kind."""
    import numpy as np

    raw = record.raw
    if raw is None:
        return np.array([])
    due, good = np.asarray(raw.due_s), np.asarray(raw.status) == 200
    inside = np.zeros(len(due), dtype=bool)
    swaps = record.events_of("swap", "rollback") if kind == "swaps and rollbacks" else ()
    spans = [(event.start_s, event.window_end_s) for event in swaps]
    spans += [(one.start_s, one.end_s) for one in record.calms if one.kind == kind]
    for start, end in spans:
        inside |= (due >= start) & (due < end)
    return np.asarray(raw.latency_ms)[inside & good]


def _draw_requests(axes: Axes, record: DrillRecord, raw: RawRequests, theme: Theme) -> None:
    import numpy as np

    due, latency = np.asarray(raw.due_s), np.asarray(raw.latency_ms)
    good = np.asarray(raw.status) == 200
    step = max(1, int(good.sum()) // MAX_POINTS)
    slow = latency > (np.quantile(latency[good], 0.99) if good.any() else 0)
    shown = good & (slow | (np.arange(len(due)) % step == 0))
    dots: dict[str, Any] = {"color": theme.series[0], "linewidths": 0, "rasterized": True}
    axes.scatter(due[shown], latency[shown], s=3, alpha=0.45, **dots)
    axes.set_yscale("log")
    if good.any():
        low, high = float(latency[good].min()), float(latency[good].max())
        axes.set_ylim(low / 1.3, high * 3)
    bad = due[~good]
    if len(bad):
        label = f"not answered with 200: {len(bad)}"
        crosses: dict[str, Any] = {"marker": "x", "color": theme.worse, "linewidths": 1.2}
        places = axes.get_xaxis_transform()
        axes.scatter(bad, [0.93] * len(bad), s=22, label=label, transform=places, **crosses)
        axes.legend(loc="upper right", bbox_to_anchor=(1, 1.14))
    tint: dict[str, Any] = {"color": theme.series[0], "alpha": 0.1, "linewidth": 0}
    for event in record.events_of("swap", "rollback"):
        axes.axvspan(event.start_s, event.window_end_s, **tint)
    _set_ms_ticks(axes, "y")
    axes.minorticks_off()
    axes.set_ylabel("ms, by when it was due")
    axes.set_title("Latency of each request")


def _draw_events(
    axes: Axes, record: DrillRecord, lanes: list[tuple[EventKind, str]], theme: Theme
) -> None:
    for at, (kind, _title) in enumerate(lanes):
        for event in record.events_of(kind):
            refused = kind in ("bad model", "two at once") and event.status != 200
            colour = theme.worse if kind == "kill -9" else theme.series[3 if refused else 0]
            end = max(event.end_s, event.first_answer_s or event.end_s)
            axes.plot([event.start_s, end], [at, at], color=colour, linewidth=5, alpha=0.5)
            axes.plot([event.start_s], [at], marker="|", markersize=12, color=colour)
    axes.set_yticks(range(len(lanes)), [title for _, title in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")


def _set_ms_ticks(axes: Axes, which: str) -> None:
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    ticks = [tick for tick in TICKS_MS if low <= tick <= high]
    set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
    set_ticks(ticks, [f"{tick:g}" for tick in ticks])
