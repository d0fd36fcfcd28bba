"""`pillops sweep`: race the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from opslib.core.config import Config
from opslib.core.formatting import format_duration, plural
from opslib.ops.sweep.request import SweepRequest
from opslib.telling.columns import terminal_table
from opslib.telling.doors import (
    describe_experiment,
    make_console,
    say,
    say_inputs,
    say_verdict,
)
from opslib.telling.operation import Operation, measure, records_of, takes_request

if TYPE_CHECKING:
    from opslib.ops.sweep.record import SweepRecord


@takes_request(SweepRequest)
def sweep(request: SweepRequest, config: Config, json: Path | None) -> int:
    """Find the fastest ONNX Runtime settings for the model on this host."""
    from opslib.ops.sweep.run import keep_sweep, run_sweep

    what = f"sweep of {describe_experiment(config)}"
    record, path = measure(what, run_sweep, keep_sweep, show_sweep, request, config, json)
    if record.recommended is not None and record.recommended.changes and record.exit_code == 0:
        say(make_console(stderr=True), f"to use these settings: pillops apply {path}")
    return int(record.exit_code)


def show_sweep(console: Console, record: SweepRecord) -> None:
    """Print what was timed, what each axis does, what could not run, and the verdict."""
    from opslib.ops.sweep.columns import list_axes, list_timed, row_columns

    console.print(terminal_table(row_columns(record), list_timed(record), _caption(record)))
    for axis in list_axes(record):
        effects = "; ".join(f"batch {size}: {effect}" for size, effect in axis.effects.items())
        say(console, f"{axis.option}, {axis.value}: {effects}")
    for note in dict.fromkeys(row.note for row in record.rows if row.note):
        say(console, note)
    say_inputs(console, record.inputs)
    say_verdict(console, record.verdict, record.finding)


def _caption(record: SweepRecord) -> str:
    resumed = f"; {plural(record.resumed_trials, 'trial')} resumed" if record.resumed_trials else ""
    return (
        f"{record.lineage.host.label}; {plural(len(record.rows), 'row')}: "
        f"{record.count_outcomes()}; {format_duration(record.wall_s)}{resumed}"
    )


SWEEP = Operation(
    "sweep",
    {"sweep": sweep},
    records=records_of("opslib.ops.sweep", "SweepRecord", "ort_bench_"),
)
