"""`pillops sweep-served` and `pillops apply`: tune the service, then write what was recommended."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from opslib.core.config import Config, load_config
from opslib.core.errors import ExitCode
from opslib.core.formatting import format_duration, plural
from opslib.ops.served_sweep.request import ServedSweepRequest
from opslib.telling.columns import terminal_table
from opslib.telling.doors import (
    ConfigOption,
    describe_experiment,
    make_console,
    say,
    say_inputs,
    say_verdict,
)
from opslib.telling.operation import Operation, measure, records_of, takes_request

if TYPE_CHECKING:
    from opslib.ops.served_sweep.record import ServedSweepRecord


@takes_request(ServedSweepRequest)
def sweep_served(request: ServedSweepRequest, config: Config, json: Path | None) -> int:
    """Find the workers, threads and batching with which the service does best on this host."""
    from opslib.ops.served_sweep.run import keep_served_sweep, run_served_sweep

    what = f"sweep of the service of {describe_experiment(config)}"
    doors = (run_served_sweep, keep_served_sweep, show_served_sweep)
    record, path = measure(what, *doors, request, config, json)
    if record.recommended is not None and record.recommended.changes and record.exit_code == 0:
        say(make_console(stderr=True), f"to use these settings: pillops apply {path}")
    return int(record.exit_code)


def apply(
    record: Annotated[
        Path, typer.Argument(help="A sweep's record: ort_bench.json or served_sweep.json.")
    ],
    dry_run: Annotated[bool, typer.Option(help="Show what would be done.")] = False,
    force: Annotated[bool, typer.Option(help="Also from another host's record.")] = False,
    config: ConfigOption = None,
) -> int:
    """Write a sweep's recommended settings into config.yaml, comments kept."""
    from opslib.core.plans import carry_out
    from opslib.ops.served_sweep.apply import find_any_overrides, plan_any, read_sweep

    loaded = load_config(config)
    show = partial(say, make_console())
    path = record if record.exists() else loaded.records_dir / record
    sweep = read_sweep(path)
    show(f"{describe_experiment(loaded)}; {path}: {sweep.finding}")
    plan = plan_any(sweep, loaded, force=force)
    outcome = carry_out(plan, dry_run=dry_run, show=show)
    for skipped in outcome.skipped:
        show(f"skipped: {skipped.action.describe()}: {skipped.reason}")
    if outcome.skipped:
        return int(ExitCode.SKIPPED)
    if outcome.done:
        for key in find_any_overrides(sweep, load_config(config)):
            show(f"{key}: the file is overridden by an environment variable")
    return int(ExitCode.PASS)


def show_served_sweep(console: Console, record: ServedSweepRecord) -> None:
    """Print what was measured, what could not run, and the verdict."""
    from opslib.ops.served_sweep.columns import list_measured, list_unmeasured, row_columns

    console.print(terminal_table(row_columns(record), list_measured(record), _caption(record)))
    for group in list_unmeasured(record):
        if not group.status.startswith("equivalent"):
            numbers = ", ".join(str(number) for number in group.numbers)
            say(console, f"row {numbers}: {group.status}")
    for note in dict.fromkeys(row.note for row in record.rows if row.note):
        say(console, note)
    say_inputs(console, record.inputs)
    say_verdict(console, record.verdict, record.finding)


def _caption(record: ServedSweepRecord) -> str:
    resumed = f"; {plural(record.resumed_trials, 'trial')} resumed" if record.resumed_trials else ""
    return (
        f"{record.lineage.host.label}; {plural(len(record.rows), 'row')}: "
        f"{record.count_outcomes()}; {format_duration(record.wall_s)}{resumed}"
    )


SERVED_SWEEP = Operation(
    "served_sweep",
    {"sweep-served": sweep_served, "apply": apply},
    records=records_of("opslib.ops.served_sweep", "ServedSweepRecord", "served_sweep_"),
)
