"""Whether the clock can be believed: ages are counted from now only where now follows from before.

A clock that jumped ahead makes everything look ancient. It is noticed by a stretch of time in which
nothing at all was dated; a host that was off leaves the same, so that a person decides. Logs say
nothing: they are written under any clock, the job's own first of all.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from opslib.core.clock import is_ahead, parse_moment, part_ahead
from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.formatting import plural
from opslib.upkeep.maintenance_record import MaintenanceRecord
from opslib.upkeep.rounds import list_files

CLOCK = "clock"
GO_ON = "if the clock is right, say so once: `pillops maintain --clock-is-right`"
_RECORDS = "maintenance_*.json"


def find_doubt(config: Config, now: datetime) -> str | None:
    """Return why the clock must not decide what is old, or None where it may.

    The last round that was carried out is followed to now: no stretch without anything dated may be
    longer than `maintenance.clock_gap_days`. Where there was no round yet, the newest thing must
    not be further away than that. A doubt lasts until a person says that the clock is right, or
    until it is set right. Raises `StorageError` where a folder cannot be read.
    """
    limit = timedelta(days=config.maintenance.clock_gap_days)
    last, stopped = _last_rounds(config, now)
    if last is not None and now - last <= limit:
        return None
    if last is None and stopped is not None:
        return f"the clock is in doubt since the round of {stopped:%Y-%m-%d %H:%M} UTC; {GO_ON}"
    seen, _ = part_ahead(_dates(config), lambda moment: moment, now)
    if last is None:
        marks = [max(seen, default=now), now]
    else:
        marks = sorted([last, now, *(moment for moment in seen if last < moment < now)])
    before, after = max(pairwise(marks), key=lambda pair: pair[1] - pair[0])
    if after - before <= limit:
        return None
    days = plural(round((after - before) / timedelta(days=1)), "day")
    return (
        f"nothing is dated between {before:%Y-%m-%d} and {after:%Y-%m-%d}, {days}, "
        f"over {limit.days}: nothing is deleted; {GO_ON}"
    )


def _last_rounds(config: Config, now: datetime) -> tuple[datetime | None, datetime | None]:
    """When the last round was carried out, and when a later one stopped for its clock."""
    stopped = None
    for path in sorted(config.records_dir.glob(_RECORDS), reverse=True):
        try:
            record = MaintenanceRecord.read(path)
        except InputError:
            continue
        moment = parse_moment(record.started_at_utc)
        if moment is None or is_ahead(moment, now):
            continue
        if all(item.duty != CLOCK for item in record.skipped):
            return moment, stopped
        stopped = moment
    return None, stopped


def _dates(config: Config) -> Iterator[datetime]:
    """When what tells the time was written: the configuration, models, checkpoints, releases,
    records, reports."""
    yield _moment(config.source.stat().st_mtime)
    checkpoints = config.exp_dir / "checkpoints"
    for folder in (config.export_dir, checkpoints, config.releases_dir, config.records_dir):
        for entry in list_files(folder, lambda name: not name.startswith(".")):
            yield _moment(entry.mtime_ns / 1e9)
    days = config.report_dir.iterdir() if config.report_dir.is_dir() else ()
    yield from filter(None, (parse_moment(day.name) for day in days))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(seconds, 253_402_300_799), UTC)
