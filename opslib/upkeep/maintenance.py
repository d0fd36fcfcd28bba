"""The nightly cleaning as one plan: every duty's steps, shown first, then carried out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import StorageError, storage_errors
from opslib.core.experiment import check_experiment
from opslib.core.formatting import STAMP_FORMAT, utc_now
from opslib.core.locks import hold_lock
from opslib.core.plans import Action, Outcome, Plan
from opslib.upkeep.checkpoints import CHECKPOINTS, plan_checkpoints
from opslib.upkeep.disk import DiskReport, keep_disk_report, look_at_disks
from opslib.upkeep.gzip_logs import free_name
from opslib.upkeep.in_use import find_in_use
from opslib.upkeep.leftovers import LEFTOVERS, plan_leftovers
from opslib.upkeep.logs import ARCHIVE, LOGS, archive_folder, plan_archive, plan_logs
from opslib.upkeep.maintenance_record import DoneItem, MaintenanceRecord, SkippedItem
from opslib.upkeep.models_prune import MODELS, QUANTIZED, ModelShelf, plan_models, plan_quantized
from opslib.upkeep.releases_prune import RELEASES, plan_releases
from opslib.upkeep.reports_prune import DAILY, REPORTS, plan_daily_records, plan_reports
from opslib.upkeep.restored_prune import RESTORED, plan_restored
from opslib.upkeep.rounds import Duty, PassedOver, Round, plan_duty

LOCK_NAME = ".maintenance.lock"
_LIMITS = (
    "log_days",
    "rotate_mb",
    "archive_days",
    "checkpoint_days",
    "keep_onnx",
    "quantized_days",
    "restored_days",
    "report_days",
    "leftover_hours",
    "disk_warn_pct",
)


@dataclass(frozen=True)
class Maintenance:
    """A round with its duties, planned; nothing was touched yet."""

    this: Round
    duties: tuple[Duty, ...]

    @property
    def plan(self) -> Plan:
        """All steps, in the order in which they are done."""
        return Plan("maintenance", tuple(step for duty in self.duties for step in duty.actions))

    @property
    def passed_over(self) -> list[tuple[Duty, PassedOver]]:
        """What was left out of the plan, and why."""
        return [(duty, one) for duty in self.duties for one in duty.passed_over]

    @property
    def notes(self) -> list[str]:
        """What the plan knows that is no fault."""
        return [note for duty in self.duties for note in duty.notes]

    def lines(self) -> list[str]:
        """Return the plan as a person reads it: the steps, what is left out, what is known."""
        skipped = [f"  skip {one.target}: {one.reason}" for _, one in self.passed_over]
        notes = [f"  note: {note}" for note in self.notes]
        return [*self.plan.lines(), *skipped, *notes]


@dataclass(frozen=True)
class Maintained:
    """A finished round: its record and where that is kept."""

    record: MaintenanceRecord
    path: Path


def plan_maintenance(config: Config, *, now: datetime | None = None) -> Maintenance:
    """Return what a round would do; nothing is touched.

    Raises:
        ConfigError: the experiment is not there, or `.env` is unreadable.
    """
    check_experiment(config)
    load_service_environment(config)
    this = Round(config, now or utc_now())
    duties = [
        plan_duty(LOGS, partial(plan_logs, this)),
        plan_duty(ARCHIVE, partial(plan_archive, this)),
        *_plan_models(this),
        plan_duty(REPORTS, partial(plan_reports, this)),
        plan_duty(DAILY, partial(plan_daily_records, this)),
        plan_duty(LEFTOVERS, partial(plan_leftovers, this)),
    ]
    return Maintenance(this, tuple(duties))


def run_maintenance(
    config: Config, *, show: Callable[[str], None], now: datetime | None = None
) -> Maintained:
    """Plan a round, show it, carry it out, and return its record.

    Raises:
        BusyError: another round is under way.
        ConfigError: see `plan_maintenance`.
        StorageError: the record or the disk report cannot be written.
    """
    started = time.monotonic()
    check_experiment(config)
    with hold_lock(config.exp_dir / LOCK_NAME, "maintenance"):
        planned = plan_maintenance(config, now=now)
        this = planned.this
        for line in planned.lines():
            show(line)
        _make_folders(this)
        outcome = planned.plan.execute()
        disks = look_at_disks(config, this.now)
        record = _record(planned, outcome, disks, time.monotonic() - started)
        name = f"maintenance_{this.now.strftime(STAMP_FORMAT)}"
        done = Maintained(record, record.write(free_name(config.records_dir, name, ".json")))
        keep_disk_report(config, this.now, disks)
        return done


def _plan_models(this: Round) -> list[Duty]:
    """The duties that must know what is in use; where that is not known, none of them is done."""
    try:
        shelf = ModelShelf(this, find_in_use(this))
    except StorageError as error:
        names = (MODELS, QUANTIZED, CHECKPOINTS, RELEASES, RESTORED)
        return [Duty(name, passed_over=(PassedOver(name, str(error)),)) for name in names]
    duties = [
        plan_duty(MODELS, partial(plan_models, this, shelf)),
        plan_duty(QUANTIZED, partial(plan_quantized, this, shelf)),
        plan_duty(CHECKPOINTS, partial(plan_checkpoints, this, shelf)),
        plan_duty(RELEASES, partial(plan_releases, this, shelf)),
        plan_duty(RESTORED, partial(plan_restored, this, shelf)),
    ]
    return [Duty("service", notes=tuple(one.note for one in shelf.in_use.live)), *duties]


def _make_folders(this: Round) -> None:
    config = this.config
    for folder in (config.logs_dir, archive_folder(this), config.records_dir):
        with storage_errors(f"create {folder}"):
            folder.mkdir(parents=True, exist_ok=True)


def _record(
    planned: Maintenance, outcome: Outcome, disks: DiskReport, took_s: float
) -> MaintenanceRecord:
    this = planned.this
    duty_of = {id(step): duty.name for duty in planned.duties for step in duty.actions}
    done = tuple(_done(this, duty_of[id(step)], step) for step in outcome.done)
    skipped = [
        SkippedItem(duty=duty.name, target=one.target, reason=one.reason)
        for duty, one in planned.passed_over
    ]
    skipped += [
        SkippedItem(duty=duty_of[id(one.action)], target=one.action.target, reason=one.reason)
        for one in outcome.skipped
    ]
    by_duty: dict[str, int] = {}
    for item in done:
        by_duty[item.duty] = by_duty.get(item.duty, 0) + item.freed_bytes
    section = this.config.maintenance
    return MaintenanceRecord(
        started_at_utc=this.now.isoformat(timespec="seconds"),
        took_s=round(took_s, 3),
        exp_dir=str(this.config.exp_dir),
        freed_bytes=sum(by_duty.values()),
        freed_by_duty_bytes=by_duty,
        done=done,
        skipped=tuple(skipped),
        notes=(
            *(note for duty in planned.duties for note in duty.notes),
            *this.notes,
            *disks.notes,
        ),
        warnings=disks.warnings,
        disks=disks.disks,
        limits={name: getattr(section, name) for name in _LIMITS},
    )


def _done(this: Round, duty: str, step: Action) -> DoneItem:
    freed = this.freed_bytes.get(step.target, 0)
    return DoneItem(duty=duty, verb=step.verb, target=step.target, why=step.why, freed_bytes=freed)
