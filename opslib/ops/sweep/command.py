"""`pillops sweep` and `pillops apply`: race the settings, then write what was recommended."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from opslib.core.config import Config, load_config
from opslib.core.errors import ExitCode
from opslib.core.formatting import format_duration, plural
from opslib.ops.sweep.request import SweepRequest
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


def apply(
    record: Annotated[Path, typer.Argument(help="A sweep's record: ort_bench.json.")],
    dry_run: Annotated[bool, typer.Option(help="Show what would be done.")] = False,
    force: Annotated[bool, typer.Option(help="Also from another host's record.")] = False,
    config: ConfigOption = None,
) -> int:
    """Write a sweep's recommended settings into config.yaml, comments kept."""
    from opslib.core.plans import carry_out
    from opslib.ops.sweep.apply import find_overrides, plan_apply
    from opslib.ops.sweep.record import SweepRecord

    loaded = load_config(config)
    show = partial(say, make_console())
    path = record if record.exists() else loaded.records_dir / record
    sweep = SweepRecord.read(path)
    show(f"{describe_experiment(loaded)}; {path}: {sweep.finding}")
    plan = plan_apply(sweep, loaded, force=force)
    outcome = carry_out(plan, dry_run=dry_run, show=show)
    for skipped in outcome.skipped:
        show(f"skipped: {skipped.action.describe()}: {skipped.reason}")
    if outcome.skipped:
        return int(ExitCode.SKIPPED)
    if outcome.done:
        for key in find_overrides(sweep, load_config(config)):
            show(f"{key}: the file is overridden by an environment variable")
    return int(ExitCode.PASS)


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
    {"sweep": sweep, "apply": apply},
    records=records_of("opslib.ops.sweep", "SweepRecord", "ort_bench_"),
)
