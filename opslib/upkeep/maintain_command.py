"""The doors of upkeep: `pillops maintain`, the nightly cleaning of `scripts/maintenance.sh`,
`pillops rotate`, and `pillops health`, small jobs for cron."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from opslib.core.config import load_config
from opslib.core.errors import SkippedError
from opslib.core.formatting import format_bytes, plural, utc_now
from opslib.telling.doors import (
    ConfigOption,
    check_record_path,
    describe_experiment,
    make_console,
    run_command,
    say,
    say_if_possible,
)

health_app = typer.Typer(help="Whether app and tunnel answer.", no_args_is_help=True)


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
    from opslib.upkeep.maintenance import plan_maintenance, run_maintenance

    loaded = load_config(config)
    show = partial(say_if_possible, make_console())
    show(f"{describe_experiment(loaded)}, {utc_now():%Y-%m-%d %H:%M} UTC")
    if dry_run:
        for line in plan_maintenance(loaded, clock_is_right=clock_is_right).lines():
            show(line)
        show("dry run: nothing was changed")
        return 0

    def work() -> int:
        done = run_maintenance(loaded, show=show, clock_is_right=clock_is_right)
        record = done.record
        for one in record.skipped:
            show(f"skipped {one.target}: {one.reason}")
        for warning in record.warnings:
            show(f"warning: {warning}")
        steps, freed = plural(len(record.done), "step"), format_bytes(record.freed_bytes)
        where = done.path if done.untold is None else "its account is not kept"
        show(f"{steps} done, {freed} freed in {record.took_s:.1f} s; {where}")
        if done.untold is not None:
            note = partial(say_if_possible, make_console(stderr=True))
            note(f"warning: {done.untold}; what was done:")
            for item in record.done:
                note(f"  {item.verb} {item.target} ({format_bytes(item.freed_bytes)})")
            lost = f"{steps} done, {freed} freed; the account is not kept: {done.untold}"
            raise SkippedError(lost)
        if record.skipped:
            raise SkippedError(f"{plural(len(record.skipped), 'item')} skipped; see {done.path}")
        return 0

    return track_job(loaded, "maintenance", work, show=show)


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


@health_app.command()
def check(
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the record there too.")
    ] = None,
    config: ConfigOption = None,
) -> int:
    """Ask all watched addresses once and change nothing; 3 where one failed or is degraded."""
    from opslib.upkeep.health import check_health

    check_record_path(json_path)
    record = check_health(load_config(config))
    show = partial(say, make_console())
    for name, result in record.checks:
        show(f"{name} {result.url}: {result.describe()}")
    if record.external is None:
        show("external: not watched (health.external_url)")
    if record.layer is not None:
        show(f"failed layer: {record.layer}")
    if json_path is not None:
        record.write(json_path)
    return record.exit_code


@health_app.command()
def watch(config: ConfigOption = None) -> int:
    """Make one run of the watch, as each minute from cron: ask, count, restart, tell.

    Prints its line on stdout, and what a person must read on stderr; 3 while an incident lasts or
    the app is degraded.
    """
    from opslib.upkeep.health import watch_health

    loaded = load_config(config)
    record = watch_health(loaded, partial(say_if_possible, make_console(stderr=True)))
    say_if_possible(make_console(), record.describe())
    return record.exit_code


if __name__ == "__main__":
    run_command(maintain)
