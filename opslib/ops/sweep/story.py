"""A sweep told to people: what was tried, what is on the front, what each axis does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opslib.core.formatting import format_duration, format_ms, plural
from opslib.core.language import tr
from opslib.ops.sweep import columns
from opslib.ops.sweep.columns import list_timed
from opslib.ops.sweep.record import SweepRecord, SweepRow
from opslib.ops.sweep.rows import recommended_text
from opslib.telling.columns import page_of
from opslib.telling.scraps import publish, publish_outcome
from opslib.telling.themes import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRONT_LABELS = 6


sweep_frame = page_of(columns.row_columns, list_timed)
axis_frame = page_of(columns.axis_columns, columns.list_axes)
untimed_frame = page_of(columns.UNTIMED_COLUMNS, columns.list_untimed)


def find_front(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """Return the rows that no other beats in both latency and throughput, by latency."""
    front: list[SweepRow] = []
    for row in sorted(rows, key=lambda row: (row.p50_ms or 0.0, -(row.throughput_img_s or 0.0))):
        if not front or (row.throughput_img_s or 0.0) > (front[-1].throughput_img_s or 0.0):
            front.append(row)
    return front


def draw_pareto(record: SweepRecord, theme: Theme) -> Figure | None:
    """Draw latency against throughput: every timed row, the front, the default, the choice; None
    where no row was timed."""
    import matplotlib.pyplot as plt

    rows = list_timed(record)
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(8.8, 4.2))
    sizes = sorted({row.batch_size for row in rows})
    for index, size in enumerate(sizes):
        colour = theme.series[index % len(theme.series)]
        here = [row for row in rows if row.batch_size == size]
        _scatter(axes, here, colour, f"batch {size}")
    front = find_front(rows)
    axes.plot(*_points(front), color=theme.muted, linewidth=1.2, linestyle="--", label="front")
    _mark(axes, [row for row in rows if not row.options.changes()], "D", "default", theme)
    chosen = record.recommended
    if chosen is not None and chosen.changes:
        _mark(axes, [record.row(chosen.row)], "*", "recommended", theme)
    axes.set_xscale("log")
    axes.set_xlabel("latency of a batch, median, ms (log)")
    axes.set_ylabel("images per second")
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.tick_params(which="minor", length=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("Latency against throughput: up and left is better")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _leads(value) else "")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def describe_pareto(record: SweepRecord) -> str:
    """Return what `draw_pareto` shows, in words."""
    front = find_front(list_timed(record))[:FRONT_LABELS]
    if not front:
        return "No latency and no throughput: no setting was timed."
    points = "; ".join(
        f"{row.options.label} at batch {row.batch_size}: {format_ms(row.p50_ms)} ms, "
        f"{row.throughput_img_s or 0:,.0f} images per second"
        for row in front
    )
    return f"Latency against throughput of every timed setting. On the front: {points}."


def list_notes(record: SweepRecord) -> list[str]:
    """Return what a reader must know beside the figures."""
    lines = [f"{plural(len(record.rows), 'requested row')}: {record.count_outcomes()}."]
    for batch in record.batches:
        lines.append(
            f"Batch {batch.batch_size}: {plural(batch.race_rounds, 'round')} of racing, "
            f"{plural(batch.final_rounds, 'round')} of finals in fresh processes, "
            f"{format_duration(batch.wall_s)}; tie set: {_labels(record, batch.tie_set)}."
        )
        if batch.unclear:
            lines.append(f"Undecided: {_labels(record, batch.unclear)}.")
    lines += list(dict.fromkeys(row.note for row in record.rows if row.note))
    checked = [row.max_abs_diff for row in record.rows if row.max_abs_diff is not None]
    if checked:
        lines.append(
            f"Every timed setting answers like the model as written; no probability moved by more "
            f"than {max(checked):.1e}."
        )
    if record.resumed_trials:
        lines.append(f"Resumed: {plural(record.resumed_trials, 'trial')} of an interrupted sweep.")
    lines += record.inputs.notes()
    if record.recommended is not None and record.recommended.changes:
        lines.append("To use these settings: pillops apply ort_bench.json")
    return lines


def publish_sweep(record: SweepRecord, path: Path) -> None:
    """Publish the verdict and the key figures of a sweep as scraps."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    if record.best is None or record.recommended is None:
        return
    value = round(record.best.throughput_img_s, 1)
    label = tr("Highest throughput (batch {size})", size=record.best.batch_size)
    publish("best_throughput_img_s", value, unit="img/s", better="higher", label=label)
    publish(
        "gain",
        round(record.recommended.gain, 4),
        better="higher",
        label=tr("Recommended settings over the default"),
        interval=record.recommended.gain_ci95,
    )
    publish("recommended", recommended_text(record.recommended), label=tr("Settings to change"))
    publish("rows_timed", sum(row.has_figure for row in record.rows), label=tr("Settings timed"))


@contextmanager
def watch_sweep() -> Iterator[Callable[[float, str], None]]:
    """Yield a progress callback that shows a bar and what is in the race; gone at the end."""
    from IPython.display import display

    handle = display(_bar(0.0, "starting"), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def show(share: float, what: str) -> None:
        if handle is not None:
            handle.update(_bar(share, what), raw=True)

    yield show
    if handle is not None:
        handle.update({"text/html": "", "text/plain": ""}, raw=True)


def _bar(share: float, what: str) -> dict[str, Any]:
    shown = f"{100 * share:.0f} % of the time budget; {what}"
    html = f'<progress value="{share:.3f}" max="1"></progress> {escape(shown)}'
    return {"text/html": html, "text/plain": shown}


def _scatter(axes: Axes, rows: list[SweepRow], colour: str, label: str) -> None:
    stayed = [row for row in rows if row.outcome == "measured"]
    dropped = [row for row in rows if row.outcome != "measured"]
    axes.scatter(*_points(stayed), color=colour, s=46, label=label, zorder=3)
    axes.scatter(
        *_points(dropped),
        facecolors="none",
        edgecolors=colour,
        s=30,
        label=f"batch {rows[0].batch_size}, dropped out",
        zorder=2,
    )


def _mark(axes: Axes, rows: list[SweepRow], marker: str, label: str, theme: Theme) -> None:
    axes.scatter(
        *_points(rows),
        marker=marker,
        s=150 if marker == "*" else 90,
        facecolors="none" if marker == "D" else theme.text,
        edgecolors=theme.text,
        linewidths=1.4,
        label=label,
        zorder=4,
    )


def _points(rows: Sequence[SweepRow]) -> tuple[list[float], list[float]]:
    return [row.p50_ms or 0.0 for row in rows], [row.throughput_img_s or 0.0 for row in rows]


def _leads(value: float) -> bool:
    """Whether a minor tick of a log axis is worth a label: those that start with 2 or 5."""
    return f"{value:e}"[0] in "25"


def _labels(record: SweepRecord, numbers: Sequence[int]) -> str:
    return " | ".join(record.row(number).options.label for number in numbers)
