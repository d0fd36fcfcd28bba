"""A sweep of the service told to people: figures, and what a reader must know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opslib.core.formatting import format_duration, plural
from opslib.core.language import tr
from opslib.ops.served_sweep import columns
from opslib.ops.served_sweep.columns import list_measured
from opslib.ops.served_sweep.record import ServedRow, ServedSweepRecord
from opslib.ops.served_sweep.rows import changes_text, figure_of
from opslib.ops.served_sweep.visits import count_requests
from opslib.telling.columns import page_of
from opslib.telling.scraps import publish, publish_outcome
from opslib.telling.themes import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATE_SHARE = 0.1

row_frame = page_of(columns.row_columns, list_measured)
unmeasured_frame = page_of(columns.UNMEASURED_COLUMNS, columns.list_unmeasured)


def draw_settings(record: ServedSweepRecord, theme: Theme) -> Figure | None:
    """Draw the figure of every measured setting with that of each round, the best above; hollow is
    what dropped out. None where none was measured."""
    import matplotlib.pyplot as plt

    rows = list_measured(record)[::-1]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(8.8, 1.2 + 0.32 * len(rows)))
    colour = theme.series[0]
    for place, row in enumerate(rows):
        raw = row.raw_per_s or row.raw_p99_ms
        axes.scatter(raw, [place] * len(raw), color=theme.muted, s=10, zorder=2)
        stayed = row.outcome == "measured"
        axes.scatter(
            [figure_of(row) or 0.0],
            [place],
            facecolors=colour if stayed else "none",
            edgecolors=colour,
            s=60,
            zorder=3,
        )
    axes.set_yticks(range(len(rows)), [_label(record, row) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(left=0)
    axes.set_xlabel(_axis(record))
    axes.set_title("Each setting: its median (large) and every round")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    return figure


def describe_settings(record: ServedSweepRecord) -> str:
    """Return what `draw_settings` shows, in words."""
    rows = list_measured(record)
    if not rows:
        return "No figure: no setting was measured."
    points = "; ".join(f"{_label(record, row)}: {record.goal.tell(figure_of(row))}" for row in rows)
    return f"Every measured setting, the best first. {points}."


def list_notes(record: ServedSweepRecord) -> list[str]:
    """Return what a reader must know beside the figures."""
    lines = [f"{plural(len(record.rows), 'requested row')}: {record.count_outcomes()}."]
    result = record.result
    if result is not None:
        lines.append(
            f"{plural(result.race_rounds, 'round')} of racing, "
            f"{plural(result.final_rounds, 'round')} of finals in services started anew, "
            f"{format_duration(result.wall_s)}; tie set: {_labels(record, result.tie_set)}."
        )
        if result.unclear:
            lines.append(f"Undecided: {_labels(record, result.unclear)}.")
    if record.goal.rate_per_s is not None:
        lines.append(
            f"A p99 here is the median over the visits of the p99 of each, of "
            f"{count_requests(record.goal.rate_per_s)} requests: it ranks settings, and can miss "
            "what befalls one or two requests of a hundred."
        )
    lines += list(dict.fromkeys(f"Note: {row.note}." for row in record.rows if row.note))
    checked = [row.max_abs_diff for row in record.rows if row.max_abs_diff is not None]
    if checked:
        lines.append(
            f"Every measured setting answers like the model as written, to requests that wait in "
            f"line too; no probability moved by more than {max(checked):.1e}."
        )
    lines += _load_notes(record)
    if record.resumed_trials:
        lines.append(f"Resumed: {plural(record.resumed_trials, 'trial')} of an interrupted sweep.")
    lines += record.inputs.notes()
    if record.recommended is not None and record.recommended.changes:
        lines.append("To use these settings: pillops apply served_sweep.json")
    return lines


def publish_served_sweep(record: ServedSweepRecord, path: Path) -> None:
    """Publish the verdict and the key figures of a sweep of the service as scraps."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    if record.best is None or record.recommended is None:
        return
    if record.best.rate_per_s is not None:
        rate, label = round(record.best.rate_per_s, 1), tr("Highest rate within the limit")
        publish("best_rate_per_s", rate, unit="requests/s", better="higher", label=label)
    if record.best.p99_ms is not None:
        p99_ms, label = round(record.best.p99_ms, 3), tr("Lowest p99 at the rate")
        publish("best_p99_ms", p99_ms, unit="ms", better="lower", label=label)
    publish(
        "gain",
        round(record.recommended.gain, 4),
        better="higher",
        label=tr("Recommended settings over the default"),
        interval=record.recommended.gain_ci95,
    )
    publish("recommended", changes_text(record.recommended), label=tr("Settings to change"))
    measured = sum(row.has_figure for row in record.rows)
    publish("rows_measured", measured, label=tr("Settings measured"))


def _load_notes(record: ServedSweepRecord) -> list[str]:
    """The load comes from the host that serves."""
    late_ms, limit_ms = record.sent_late_p99_ms, record.goal.p99_limit_ms
    compared = limit_ms or (record.best and record.best.p99_ms)
    lines = ["The load came from this host and took its share of the processors."]
    if late_ms and compared and late_ms > LATE_SHARE * compared:
        lines.append(
            f"The load generator itself was late by up to {late_ms:.1f} ms (99th percentile), "
            "which every figure holds."
        )
    return lines


def _axis(record: ServedSweepRecord) -> str:
    goal = record.goal
    if goal.objective == "throughput":
        return f"requests a second, p99 within {goal.p99_limit_ms:g} ms"
    return f"p99, ms, at {goal.rate_per_s:,.0f} requests a second"


def _label(record: ServedSweepRecord, row: ServedRow) -> str:
    chosen = record.recommended is not None and record.recommended.row == row.number
    return f"{row.options.label} (recommended)" if chosen else row.options.label


def _labels(record: ServedSweepRecord, numbers: tuple[int, ...]) -> str:
    return " | ".join(record.row(number).options.label for number in numbers)
