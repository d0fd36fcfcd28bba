"""`pillops apply`: a sweep's recommended settings, shown and then written into config.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opslib.core.config import load_config
from opslib.core.errors import ExitCode
from opslib.telling.doors import ConfigOption, describe_experiment, make_console, say


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
    console = make_console()

    def show(line: str) -> None:
        say(console, line)

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
