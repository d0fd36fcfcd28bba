"""Whether the nightly maintenance ran and did its work, and whether logs are really cut."""

from datetime import datetime
from pathlib import Path

from opslib.core.clock import is_ahead, parse_moment, part_ahead
from opslib.core.errors import InputError, StorageError
from opslib.core.formatting import format_bytes
from opslib.core.language import mark, tr, tr_many
from opslib.ops.checklist.items import (
    DAY_S,
    Answer,
    Evidence,
    Visit,
    age_days,
    describe_age,
    describe_days,
    named_moment,
    tell_ahead,
)
from opslib.ops.checklist.log_lines import read_time
from opslib.ops.checklist.logs import tunnel_log_path
from opslib.upkeep.job_status import RAN_WELL, is_running, read_status
from opslib.upkeep.log_names import is_log
from opslib.upkeep.maintenance_record import MaintenanceRecord, find_journals, read_journal

PATTERN = "maintenance_*.json"
RUN = mark("run it: `pillops maintain`; is it scheduled? `pillops schedule show`")
CUT = mark("cut them now: `pillops maintain`; the tunnel's on Windows: its task, 03:00")
SHOWN = 3
GRACE_DAYS = 2.0
GRACE_SIZE = 2.0
MIB = 1 << 20
_HEAD_BYTES = 4096
_Last = MaintenanceRecord | InputError


def check_maintenance(visit: Visit) -> Answer:
    """Return when the last maintenance was, what it did, and what it had to leave."""
    untold, found = _look_for_untold(visit), Evidence()
    last, ahead = _find_last(visit)
    if last is None and ahead:
        told = tell_ahead(_count_records(ahead), ahead)
        return Answer.of("attention", str(told), *untold, step=tr(RUN))
    if last is None:
        never = tr("no maintenance ever ran on {folder}", folder=visit.config.exp_dir)
        never = tr("not set up: {line}", line=never)
        step = tr("run it: `pillops maintain`; schedule it: `pillops schedule install`")
        return Answer.of("attention", *(untold or [never]), step=step)
    newest, record = last
    if isinstance(record, InputError):
        return Answer.of("attention", str(record), step=tr(RUN))
    age = age_days(record.started_at_utc, visit.now)
    limit_h = visit.config.checklist.maintenance_age_h
    told = tr_many(
        "{age}: {count} step, {freed} freed",
        "{age}: {count} steps, {freed} freed",
        len(record.done),
        age=describe_age(age),
        freed=format_bytes(record.freed_bytes),
    )
    if age is None or age * 24 > limit_h:
        due = tr("{told}; it is due at least every {hours:g} h", told=told, hours=limit_h)
        found.add("attention", due, tr(RUN))
    else:
        found.add("ok", told)
    for line in untold:
        found.add("attention", line)
    found.add_ahead(_count_records(ahead), ahead)
    left = [f"{one.target}: {one.reason}" for one in record.skipped]
    for what, lines in ((tr("left alone"), left), (tr("warning"), list(record.warnings))):
        for line in lines[:SHOWN]:
            found.add("attention", f"{what}: {line}")
        if len(lines) > SHOWN:
            more = tr("{count} more in {name}", count=len(lines) - SHOWN, name=newest.name)
            found.add("attention", f"{what}: {more}")
    step = tr("read {record}; repair what it names, then `pillops maintain`", record=newest)
    return found.answer(step)


def _count_records(names: list[str]) -> str:
    return tr_many("{count} record", "{count} records", len(names))


def _find_last(visit: Visit) -> tuple[tuple[Path, _Last] | None, list[str]]:
    """The newest record that is not dated after now, or why it cannot be read; and the names of
    those that are."""
    ahead: list[str] = []
    for path in sorted(visit.config.records_dir.glob(PATTERN), reverse=True):
        record: _Last
        try:
            record = MaintenanceRecord.read(path)
            moment = parse_moment(record.started_at_utc)
        except InputError as error:
            record, moment = error, named_moment(path)
        if not is_ahead(moment, visit.now):
            return (path, record), ahead
        ahead.append(path.name)
    return None, ahead


def _look_for_untold(visit: Visit) -> list[str]:
    """What is known of rounds without a record: cut off, ended badly, or no room for one."""
    found = []
    for path in find_journals(visit.config.records_dir):
        try:
            record, pid = read_journal(path)
        except StorageError as error:
            found.append(str(error))
            continue
        if not is_running(pid):
            found.append(f"{path.name}: {record.warnings[0]}")
    try:
        status = read_status(visit.config, "maintenance")
    except InputError as error:
        return [*found, str(error)]
    if status is not None and (status.exit_code or 0) not in RAN_WELL:
        ended = describe_age(age_days(status.started_at_utc, visit.now))
        found.append(
            tr("its last run, {age}, ended badly: {how}", age=ended, how=status.describe())
        )
    return found


def check_rotation(visit: Visit) -> Answer:
    """Return whether the service's logs and the tunnel's are cut and old archives deleted, as
    the files themselves show."""
    found, section = Evidence(), visit.config.maintenance
    logs = [one for one in visit.config.logs_dir.glob("*") if is_log(visit.config, one.name)]
    large = [one for one in logs if one.stat().st_size > GRACE_SIZE * section.rotate_mb * MIB]
    if large:
        shown = ", ".join(f"{p.name} ({format_bytes(p.stat().st_size)})" for p in large[:SHOWN])
        told = tr("not cut at {mb:g} MiB: {logs}", mb=section.rotate_mb, logs=shown)
        found.add("attention", told)
    else:
        limit_mb = GRACE_SIZE * section.rotate_mb
        told = tr_many(
            "{count} log below {mb:g} MiB each",
            "{count} logs below {mb:g} MiB each",
            len(logs),
            mb=limit_mb,
        )
        found.add("ok", told if logs else tr("no log yet"))
    limit = section.archive_days
    ages = [_age(path, visit.now) for path in (visit.config.logs_dir / "archive").glob("*.gz")]
    late = [age for age in ages if age > limit + GRACE_DAYS]
    if late:
        told = tr_many(
            "{count} archive older than {days} days, which are kept",
            "{count} archives older than {days} days, which are kept",
            len(late),
            days=limit,
        )
        found.add("attention", told)
    elif ages:
        told = tr_many(
            "{count} archive, none older than {days} days",
            "{count} archives, none older than {days} days",
            len(ages),
            days=limit,
        )
        found.add("ok", told)
    _look_at_tunnel(visit, found)
    return found.answer(tr(CUT))


def _look_at_tunnel(visit: Visit, found: Evidence) -> None:
    section = visit.config.rotate
    path = tunnel_log_path(visit.config)
    if not path.is_file():
        return
    size, before = path.stat().st_size, len(found.lines)
    archives = sorted(path.parent.glob(f"{path.name}.*.gz"), key=lambda one: one.stat().st_mtime)
    archives, ahead = part_ahead(archives, lambda one: one.stat().st_mtime, visit.now)
    counted = tr_many("{count} archive", "{count} archives", len(ahead))
    found.add_ahead(counted, [one.name for one in ahead])
    if size > GRACE_SIZE * section.max_mb * MIB:
        told = tr(
            "{name} has {size}: not cut at {mb:g} MB",
            name=path.name,
            size=format_bytes(size),
            mb=section.max_mb,
        )
        found.add("attention", told)
    if len(archives) > section.keep + 1:
        told = tr_many(
            "{count} archive of {name}, {keep} are kept",
            "{count} archives of {name}, {keep} are kept",
            len(archives),
            name=path.name,
            keep=section.keep,
        )
        found.add("attention", told)
    age = _age(archives[-1], visit.now) if archives else _first_line_age(path, visit.now)
    if age is not None and size and age > section.max_days + GRACE_DAYS:
        told = tr(
            "{name}: not rotated for {span}: due after {days:g}",
            name=path.name,
            span=describe_days(age),
            days=section.max_days,
        )
        found.add("attention", told)
    if len(found.lines) == before:
        told = f"{path.name}: {format_bytes(size)}"
        if archives:
            told += tr(", last rotated {age}", age=describe_age(age))
        found.add("ok", told)


def _first_line_age(path: Path, now: datetime) -> float | None:
    """Days since the first line of a log that was never rotated, or None where it says no time."""
    with path.open("rb") as file:
        line = file.read(_HEAD_BYTES).partition(b"\n")[0].decode("utf-8", "replace")
    _, _, value = line.partition('"time":"') if line.startswith("{") else ("", "", line)
    moment = read_time(value)
    return None if moment is None else (now - moment).total_seconds() / DAY_S


def _age(path: Path, now: datetime) -> float:
    return (now.timestamp() - path.stat().st_mtime) / DAY_S
