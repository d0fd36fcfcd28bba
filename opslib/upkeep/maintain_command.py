"""`pillops maintain`, the nightly cleaning of `scripts/maintenance.sh`, and `pillops rotate`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from opslib.core.config import Config, load_config
from opslib.core.errors import SkippedError
from opslib.core.formatting import format_bytes, plural, utc_now
from opslib.telling.doors import (
    ConfigOption,
    describe_experiment,
    make_console,
    run_command,
    say_if_possible,
)


def maintain(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show the plan, do nothing.")
    ] = False,
    clock_is_right: Annotated[
        bool, typer.Option("--clock-is-right", help="Go on after a long time without a round.")
    ] = False,
    config: ConfigOption = None,
) -> int:
    """Clean the experiment: logs, checkpoints, models, releases, reports; and report the disks."""
    from opslib.upkeep.job_status import track_job
    from opslib.upkeep.maintenance import plan_maintenance

    loaded = load_config(config)
    show = partial(say_if_possible, make_console())
    show(f"{describe_experiment(loaded)}, {utc_now():%Y-%m-%d %H:%M} UTC")
    if dry_run:
        for line in plan_maintenance(loaded, clock_is_right=clock_is_right).lines():
            show(line)
        show("dry run: nothing was changed")
        return 0

    def work() -> int:
        return _clean(loaded, show, clock_is_right=clock_is_right)

    return track_job(loaded, "maintenance", work, show=show)


def _clean(config: Config, show: Callable[[str], None], *, clock_is_right: bool) -> int:
    """Carry out the plan, tell what came of it, and return 0.

    Raises:
        SkippedError: something was left out.
    """
    from opslib.upkeep.maintenance import run_maintenance

    done = run_maintenance(config, show=show, clock_is_right=clock_is_right)
    record = done.record
    for one in record.skipped:
        show(f"skipped {one.target}: {one.reason}")
    for warning in record.warnings:
        show(f"warning: {warning}")
    steps, freed = plural(len(record.done), "step"), format_bytes(record.freed_bytes)
    where = done.path if done.untold is None else "its account is not kept"
    show(f"{steps} done, {freed} freed in {record.took_s:.1f} s; {where}")
    if done.untold is not None:
        notes = partial(say_if_possible, make_console(stderr=True))
        notes(f"warning: {done.untold}; what was done:")
        for item in record.done:
            notes(f"  {item.verb} {item.target} ({format_bytes(item.freed_bytes)})")
        raise SkippedError(f"{steps} done, {freed} freed; the account is not kept: {done.untold}")
    if record.skipped:
        raise SkippedError(f"{plural(len(record.skipped), 'item')} skipped; see {done.path}")
    return 0


def rotate(
    log: Annotated[Path | None, typer.Option(help="Another log than rotate.log.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")] = False,
    config: ConfigOption = None,
) -> int:
    """Rotate a log that is large or old, whoever has it open, and keep the newest archives."""
    from opslib.upkeep.rotate import run_rotation

    loaded = load_config(config)
    show = partial(say_if_possible, make_console())
    return run_rotation(loaded, log=log, dry_run=dry_run, show=show).exit_code


if __name__ == "__main__":
    run_command(maintain)
