"""`pillops sweep` and `scripts/ort_optimize.py`: race the settings, print, keep the record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from opslib.core.config import load_config
from opslib.core.formatting import format_duration, format_ms, plural
from opslib.ops.bench.command import parse_batch
from opslib.telling.doors import (
    ConfigOption,
    check_record_path,
    describe_experiment,
    make_console,
    plain_cells,
    say,
    say_inputs,
    say_verdict,
)
from opslib.telling.progress import show_progress

if TYPE_CHECKING:
    from opslib.ops.sweep.record import SweepRecord, SweepRow


def sweep(
    model: Annotated[Path | None, typer.Option(help="ONNX file; default: the latest.")] = None,
    inputs: Annotated[str | None, typer.Option(help='Images: "folder/**/*.jpg".')] = None,
    objective: Annotated[str | None, typer.Option(help="throughput or p50.")] = None,
    batch: Annotated[str | None, typer.Option(help="Batch sizes: 1,8.")] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds for everything.")] = None,
    fresh: Annotated[bool, typer.Option(help="Forget an interrupted sweep.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where the record goes.")] = None,
    config: ConfigOption = None,
) -> int:
    """Find the fastest ONNX Runtime settings for the model on this host."""
    from opslib.ops.sweep.run import SweepRequest, keep_sweep, run_sweep

    check_record_path(json)
    loaded = load_config(config)
    notes = make_console(stderr=True)
    say(notes, f"sweep of {describe_experiment(loaded)}")
    request = SweepRequest(
        model=model,
        inputs=inputs,
        batch=parse_batch(batch),
        budget_s=budget,
        objective=objective,
        fresh=fresh,
    )
    with show_progress(notes) as progress:
        record = run_sweep(loaded, request, progress=progress)
    path = keep_sweep(record, loaded, json)
    show_sweep(make_console(), record)
    say(notes, f"record: {path}")
    if record.recommended is not None and record.recommended.changes and record.exit_code == 0:
        say(notes, f"to use these settings: pillops apply {path}")
    return record.exit_code


def show_sweep(console: Console, record: SweepRecord) -> None:
    """Print what was timed, what each axis does, what could not run, and the verdict."""
    table = Table(
        caption=Text(_caption(record), style="table.caption"),
        caption_justify="left",
        pad_edge=False,
    )
    table.add_column("row", justify="right")
    for name in ("settings (changes from the default)", "on"):
        table.add_column(name)
    for name in ("batch", "p50 ms", "img/s", "× default"):
        table.add_column(name, justify="right")
    table.add_column("status")
    timed = [row for row in record.rows if row.has_figure]
    for row in sorted(timed, key=lambda row: (row.batch_size, row.p50_ms or 0.0)):
        table.add_row(*plain_cells(_cells(record, row)))
    console.print(table)
    for text in _axis_lines(record):
        say(console, text)
    for note in dict.fromkeys(row.note for row in record.rows if row.note):
        say(console, note)
    say_inputs(console, record.inputs)
    say_verdict(console, record.verdict, record.finding)


def _axis_lines(record: SweepRecord) -> list[str]:
    effects: dict[tuple[str, str], list[str]] = {}
    for one in record.axes:
        at = f"batch {one.batch_size}: {one.effect}"
        effects.setdefault((one.axis, one.value), []).append(at)
    return [f"{axis}, {value}: {'; '.join(parts)}" for (axis, value), parts in effects.items()]


def _cells(record: SweepRecord, row: SweepRow) -> list[str]:
    marks = []
    if record.recommended and row.number == record.recommended.row:
        marks.append("recommended")
    if record.best and row.number == record.best.row:
        marks.append("fastest")
    marks.append("tied" if row.tied_with_best and not marks else row.status)
    interval = row.speedup_ci95
    span = f" ({interval[0]:.2f}–{interval[1]:.2f})" if interval and row.from_finals else ""
    return [
        str(row.number),
        row.options.label,
        row.provider,
        str(row.batch_size),
        format_ms(row.p50_ms),
        f"{row.throughput_img_s or 0:,.0f}",
        f"{row.speedup or 0:.2f}{span}",
        ", ".join(marks),
    ]


def _caption(record: SweepRecord) -> str:
    statuses = [row.status.split(" ")[0].rstrip(":") for row in record.rows]
    counts = {name: statuses.count(name) for name in dict.fromkeys(statuses)}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    resumed = f"; {plural(record.resumed_trials, 'trial')} resumed" if record.resumed_trials else ""
    return (
        f"{record.lineage.host.label}; {plural(len(record.rows), 'row')}: {said}; "
        f"{format_duration(record.wall_s)}{resumed}"
    )
