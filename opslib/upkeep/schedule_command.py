"""`pillops schedule show | install | remove | run`: the jobs that cron starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opslib.core.clock import ASK, is_ahead
from opslib.core.config import Config, load_config
from opslib.core.errors import ConfigError, InputError, OpsError, UsageError
from opslib.core.overrides import is_own_variable
from opslib.telling.doors import (
    ConfigOption,
    describe_experiment,
    make_console,
    plain_cells,
    say_if_possible,
)

if TYPE_CHECKING:
    from opslib.upkeep.job_status import JobStatus
    from opslib.upkeep.schedule import Edit, Entry

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")]

schedule_app = typer.Typer(help="The jobs that cron starts.", no_args_is_help=True)


_JOB_HELP = "maintenance, index, release, bench, drill, health."


@schedule_app.command()
def show(config: ConfigOption = None) -> int:
    """Show each job: when it runs, how it ended last, and whether cron knows of it."""
    from rich.table import Table

    from opslib.core.formatting import utc_now
    from opslib.upkeep import crontab, schedule

    loaded, place = _load_as_cron(config), schedule.find_place(sys.executable)
    text = crontab.read_crontab()
    block = crontab.take_apart(text, str(loaded.source)).block
    zone, zone_name = schedule.host_zone()
    now = utc_now().astimezone(zone)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("job", "when", "next run", "last run"):
        table.add_column(title)
    for entry in schedule.make_entries(loaded, place):
        table.add_row(*plain_cells(_cells(loaded, entry, now, is_installed=block is not None)))
    _tell(describe_experiment(loaded))
    make_console().print(table)
    _tell(f"times in {zone_name}, the host's time zone; now {now:%Y-%m-%d %H:%M}, UTC{now:%z}")
    if block is None:
        _tell("not installed: `pillops schedule install` puts the jobs into your crontab")
    elif block != schedule.block_text(loaded, place):
        _tell("installed, but not as configured now: `pillops schedule install` renews it")
    else:
        _tell("installed in your crontab")
    _tell_notes(loaded, text)
    return 0


@schedule_app.command()
def install(
    dry_run: DryRunOption = False,
    demo: Annotated[bool, typer.Option("--demo", help="Also for the demo experiment.")] = False,
    config: ConfigOption = None,
) -> int:
    """Put the jobs into your crontab; again after a change of the configuration."""
    from opslib.upkeep.schedule import edit_to_install, find_place

    loaded = _load_as_cron(config)
    _tell(describe_experiment(loaded))
    if loaded.is_demo and not demo:
        raise UsageError(f"{loaded.exp_dir} is the demo; `--demo` schedules its jobs all the same")
    install = partial(edit_to_install, loaded, find_place(sys.executable))
    _tell_notes(loaded, _change_crontab(install, dry_run=dry_run))
    return 0


@schedule_app.command()
def remove(dry_run: DryRunOption = False, config: ConfigOption = None) -> int:
    """Take this configuration's jobs out of your crontab; the rest stays as it is."""
    from opslib.upkeep.schedule import edit_to_remove

    loaded = _load_as_cron(config)
    _tell(describe_experiment(loaded))
    _change_crontab(partial(edit_to_remove, loaded), dry_run=dry_run)
    return 0


@schedule_app.command()
def run(
    job: Annotated[str, typer.Argument(help=_JOB_HELP)],
    as_cron: Annotated[
        bool, typer.Option("--as-cron", help="By the crontab's own line, logged.")
    ] = False,
    config: ConfigOption = None,
) -> int:
    """Run a job now, as at its time: locked, its end kept, its dead man told."""
    from opslib.upkeep.jobs import find_job, run_as_cron, run_job
    from opslib.upkeep.schedule import find_place, make_entries

    wanted, place = find_job(job), find_place(sys.executable)
    if not as_cron:
        return run_job(load_config(config), wanted, place, show=_tell)
    loaded = _load_as_cron(config)
    entry = next(one for one in make_entries(loaded, place) if one.job == wanted)
    _tell(f"{describe_experiment(loaded)}: {entry.command}")
    code = run_as_cron(entry.command)
    _tell(f"ended with {code}; its output was appended to {entry.log}")
    return code


def _tell(text: str) -> None:
    say_if_possible(make_console(), text)


def _load_as_cron(path: Path | None) -> Config:
    """Return the configuration as a job sees it that has no variables but those of `.env`; refuse
    one that a variable of this shell overrides: the jobs would not have it."""
    loaded = load_config(path, {})
    if load_config(path) != loaded:
        names = ", ".join(sorted(filter(is_own_variable, os.environ)))
        raise ConfigError(f"{names}: set in this shell, unknown to cron; use .env or config.yaml")
    return loaded


def _change_crontab(make: Callable[[], Edit], *, dry_run: bool) -> str:
    """Show a change, carry it out, and return what the crontab is to be."""
    from opslib.core.plans import carry_out
    from opslib.upkeep.crontab import hold_crontab

    with hold_crontab():
        edit = make()
        for line in edit.differences:
            _tell(line)
        for skipped in carry_out(edit.plan(), dry_run=dry_run, show=_tell).skipped:
            raise OpsError(f"{skipped.action.verb} {skipped.action.target}: {skipped.reason}")
    return edit.new


def _cells(config: Config, entry: Entry, now: datetime, *, is_installed: bool) -> list[str]:
    from opslib.upkeep.job_status import read_status
    from opslib.upkeep.schedule import in_words, next_run

    at = entry.expression
    upcoming = f"{next_run(at, now):%Y-%m-%d %H:%M}" if at and is_installed else "–"
    try:
        status = read_status(config, entry.job.name)
    except InputError as error:
        last = f"unknown: {error}"
    else:
        last = f"{_clock(status, now)}, {status.describe()}" if status else "never"
    return [entry.job.name, in_words(at) if at else "off", upcoming, last]


def _clock(status: JobStatus, now: datetime) -> str:
    started = datetime.fromisoformat(status.started_at_utc)
    ahead = f" (after now: {ASK})" if is_ahead(started, now) else ""
    return f"{started.astimezone(now.tzinfo):%Y-%m-%d %H:%M}{ahead}"


def _tell_notes(config: Config, text: str) -> None:
    from opslib.upkeep.schedule import crontab_notes, is_cron_running

    for note in crontab_notes(config, text):
        _tell(note)
    if not is_cron_running():
        where = "docs/OPS_CHECKLIST.md#schedules"
        _tell(f"warning: no cron runs on this host, so nothing is started; see {where}")
