"""The nightly cleaning as one plan: every duty's steps, shown first, then carried out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opslib.core.config import Config, check_experiment
from opslib.core.environment import load_service_environment
from opslib.core.errors import StorageError
from opslib.core.formatting import STAMP_FORMAT, plural, utc_now
from opslib.core.locks import hold_lock
from opslib.core.ownership import make_folder
from opslib.core.plans import Plan
from opslib.upkeep import disk, logs, models_prune, releases_prune, reports_prune
from opslib.upkeep.clock_gap import CLOCK, find_doubt
from opslib.upkeep.gzip_logs import free_name
from opslib.upkeep.in_use import find_in_use
from opslib.upkeep.maintenance_record import (
    SUFFIX,
    Journal,
    MaintenanceRecord,
    SkippedItem,
    make_record,
    settle_journals,
)
from opslib.upkeep.rounds import Duty, Round, pass_over, plan_duty

LOCK_NAME = ".maintenance.lock"
DISKS = "disks"
_BY_USE = {  # these must know what is in use
    models_prune.MODELS: models_prune.plan_models,
    models_prune.QUANTIZED: models_prune.plan_quantized,
    models_prune.CHECKPOINTS: models_prune.plan_checkpoints,
    releases_prune.RELEASES: releases_prune.plan_releases,
    releases_prune.RESTORED: releases_prune.plan_restored,
}
_LAST = {
    reports_prune.REPORTS: reports_prune.plan_reports,
    reports_prune.DAILY: reports_prune.plan_daily_records,
    releases_prune.LEFTOVERS: releases_prune.plan_leftovers,
}


@dataclass(frozen=True)
class Maintenance:
    """A round with its duties, planned; nothing was touched yet."""

    this: Round
    duties: tuple[Duty, ...]

    @property
    def plan(self) -> Plan:
        """All steps, in the order in which they are done: deleting needs no room on a full disk
        and makes that which compressing needs."""
        steps = [step for duty in self.duties for step in duty.actions]
        return Plan("maintenance", tuple(sorted(steps, key=lambda step: step.verb != "delete")))

    @property
    def passed_over(self) -> list[SkippedItem]:
        """What was left out of the plan, and why."""
        return [one for duty in self.duties for one in duty.passed_over]

    @property
    def notes(self) -> list[str]:
        """What the plan knows that is no fault."""
        return [note for duty in self.duties for note in duty.notes]

    def lines(self) -> list[str]:
        """Return the plan as a person reads it: the steps, what is left out, what is known."""
        skipped = [f"  skip {one.target}: {one.reason}" for one in self.passed_over]
        return [*self.plan.lines(), *skipped, *(f"  note: {note}" for note in self.notes)]


@dataclass(frozen=True)
class Maintained:
    """A finished round: its record, and where that is kept or why it could not be."""

    record: MaintenanceRecord
    path: Path
    untold: str | None = None


def plan_maintenance(
    config: Config, *, now: datetime | None = None, clock_is_right: bool = False
) -> Maintenance:
    """Return what a round would do; nothing is touched. `now`: the moment that ages are counted
    from; the current time by default. `clock_is_right`: a person says so; where it is in doubt (see
    `find_doubt`), logs are cut by their size alone and nothing is deleted. Raises `ConfigError`
    where the experiment is not there, or `.env` is unreadable; `StorageError` where a folder that
    tells the time cannot be read."""
    check_experiment(config)
    load_service_environment(config)
    moment = now or utc_now()
    doubt = None if clock_is_right else find_doubt(config, moment)
    this = Round(config, moment, doubt)
    cut = plan_duty(logs.LOGS, logs.plan_logs, this)
    if doubt is not None:
        return Maintenance(this, (cut, pass_over(CLOCK, doubt)))
    archive = plan_duty(logs.ARCHIVE, logs.plan_archive, this)
    try:
        shelf = models_prune.ModelShelf(this, find_in_use(this))
    except StorageError as error:  # none of them is done
        by_use = [pass_over(name, str(error)) for name in _BY_USE]
    else:
        by_use = [Duty("service", notes=tuple(one.note for one in shelf.in_use.live))]
        by_use += [plan_duty(name, plan, this, shelf) for name, plan in _BY_USE.items()]
    last = [plan_duty(name, plan, this) for name, plan in _LAST.items()]
    return Maintenance(this, (cut, archive, *by_use, *last))


def run_maintenance(
    config: Config,
    *,
    show: Callable[[str], None],
    now: datetime | None = None,
    clock_is_right: bool = False,
) -> Maintained:
    """Plan a round (see `plan_maintenance`), show it, carry it out, and return its record.

    What cannot be written down on a full disk stops nothing: an account that finds no room is told
    by the answer. A round that is ended by a signal keeps its account, too. Raises `BusyError`
    where another round is under way; `ConfigError`, see `plan_maintenance`.
    """
    started = time.monotonic()
    check_experiment(config)
    with hold_lock(config.exp_dir / LOCK_NAME, "maintenance"):
        planned = plan_maintenance(config, now=now, clock_is_right=clock_is_right)
        this, name = planned.this, f"maintenance_{planned.this.now.strftime(STAMP_FORMAT)}"
        for line in planned.lines():
            show(line)
        duties = {id(step): duty.name for duty in planned.duties for step in duty.actions}
        at = {"started_at_utc": this.now.isoformat(timespec="seconds")}
        head = {**at, "exp_dir": str(config.exp_dir)}
        account = free_name(config.records_dir, name, SUFFIX)
        journal = Journal(account, head, duties, this.freed_bytes)

        def keep(disks: disk.DiskReport, *warnings: str) -> Maintained:
            """Write the record; where that fails the journal stays, if there was room for it."""
            record = make_record(
                journal.done,
                **head,
                took_s=round(time.monotonic() - started, 3),
                skipped=(*planned.passed_over, *journal.skipped),
                notes=(*planned.notes, *this.notes, *disks.notes),
                warnings=(*warnings, *disks.warnings),
                disks=disks.disks,
                limits={
                    key: value
                    for key, value in config.maintenance
                    if isinstance(value, int | float) and key != "version_timeout_s"
                },
            )
            path, untold = free_name(config.records_dir, name, ".json"), None
            try:
                record.write(path)
            except StorageError as error:
                untold = str(error)
            journal.close(remove=untold is None)
            return Maintained(record, path, untold)

        try:
            planned.plan.execute(journal)
            disks = disk.look_at_disks(config, this.now)
            _write_rest(this, journal, disks)
        except BaseException as error:
            journal.interrupt()
            why = f"the round was ended after {plural(len(journal.done), 'step')}: {error!r}"
            done = keep(disk.DiskReport(), why)
            show(f"{why}; {done.untold or done.path}")
            raise
        done = keep(disks)
        settle_journals(config.records_dir)
        return done


def _write_rest(this: Round, journal: Journal, disks: disk.DiskReport) -> None:
    """Make the folders that an operator expects and keep the disk report, where there is room."""
    config = this.config

    def skip(path: Path, reason: str) -> None:
        journal.skip(SkippedItem(duty=DISKS, target=this.name_of(path), reason=reason))

    for folder in (config.logs_dir, logs.archive_folder(this), config.records_dir):
        try:
            make_folder(folder)
        except OSError as error:
            skip(folder, f"cannot be created: {error.strerror}")
    try:
        disk.keep_disk_report(config, this.now, disks)
    except StorageError as error:
        skip(disk.report_path(config, this.now), str(error))
