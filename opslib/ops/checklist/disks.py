"""How full the disks are, and when they will be if they go on like this."""

from collections.abc import Callable, Sequence
from datetime import datetime

from opslib.core.config import Config
from opslib.core.formatting import format_bytes
from opslib.core.language import mark, tr, tr_many
from opslib.ops.checklist.items import (
    Answer,
    DiskFacts,
    DiskPoint,
    Evidence,
    State,
    Visit,
    age_days,
    describe_days,
)
from opslib.upkeep.disk import DiskReport, look_at_disks, read_disk_history
from opslib.upkeep.maintenance_record import DiskUse

MIN_POINTS = 7
MIN_SPAN_DAYS = 5.0
HISTORY_DAYS = 60.0
CONFIDENCE = 0.95
SURGE_FULL_DAYS = 2.0
SURGE_MIN_DAYS = 0.25
FREE_UP = mark(
    "free it: `pillops maintain --dry-run` shows what it would delete; then look at `du`"
)
MOUNT = mark("mount what is missing, or take it off `maintenance.disks`")


LookAtDisks = Callable[[Config, datetime], DiskReport]


def check_disks(visit: Visit, look: LookAtDisks = look_at_disks) -> Answer:
    """Return how full each disk is, its trend, and when it will be full. `look`: how the use of the
    mounted file systems is read."""
    report, found = look(visit.config, visit.now), Evidence()
    history: dict[str, list[DiskPoint]] = {}
    for one in read_disk_history(visit.config):
        point = DiskPoint(at_utc=one.at_utc, used_bytes=one.used_bytes)
        history.setdefault(one.mount, []).append(point)
    disks = [describe_disk(use, history.get(use.mount, []), visit.now) for use in report.disks]
    for disk in disks:
        found.add(*_judge(disk, visit))
    step = MOUNT if found.state == "ok" else FREE_UP
    usual: State = "ok" if visit.config.is_demo else "attention"
    for note in report.notes:
        lost = note.startswith(f"{visit.config.exp_dir}: ")
        found.add("failed" if lost else usual, note)
    return found.answer(tr(step)).model_copy(update={"disks": tuple(disks)})


def describe_disk(use: DiskUse, history: Sequence[DiskPoint], now: datetime) -> DiskFacts:
    """Return the facts of one disk: its use as `df` shows it, and what its history tells. Growth is
    Theil and Sen's slope, the median over all pairs of points, so that what maintenance deletes now
    and then does not bend it."""
    here = DiskPoint(at_utc=now.isoformat(timespec="seconds"), used_bytes=use.used_bytes)
    points = [p for p in history if 0 < _days_before(p, now) <= HISTORY_DAYS]
    points = [*sorted(points, key=lambda point: point.at_utc), here]
    span = _days_before(points[0], now)
    known = tr_many("{count} reading", "{count} readings", len(points))
    if len(points) > 1:
        known = tr("{readings} over {span}", readings=known, span=describe_days(span))
    trend: dict[str, object] = {"trend": tr("no trend yet ({known})", known=known)}
    if len(points) >= MIN_POINTS and span >= MIN_SPAN_DAYS:
        trend = _find_trend(points, use.free_bytes, now)
    use_now = use.model_dump(exclude={"at_utc"})
    facts = {**use_now, "used_pct": use.used_pct, "history": tuple(points), **trend}
    return DiskFacts.model_validate(facts)


def _find_trend(points: list[DiskPoint], free_bytes: int, now: datetime) -> dict[str, object]:
    from scipy.stats import theilslopes

    days = [-_days_before(point, now) for point in points]
    used = [float(point.used_bytes) for point in points]
    slope, _, low, high = (float(v) for v in theilslopes(used, days, CONFIDENCE))
    growth = {"growth_bytes_per_day": slope, "growth_ci95_bytes_per_day": (low, high)}
    if high < 0:
        return {"trend": tr("shrinking by {rate}", rate=_rate(-slope)), **growth}
    if low <= 0:
        return {"trend": tr("no clear growth"), **growth}
    until, earliest = free_bytes / slope, free_bytes / high
    trend = tr(
        "growing by {rate}, full in {span} (at the earliest {earliest})",
        rate=_rate(slope),
        span=describe_days(until),
        earliest=describe_days(earliest),
    )
    full = {"days_until_full": until, "days_until_full_earliest": earliest}
    return {"trend": trend, **growth, **full}


def _judge(disk: DiskFacts, visit: Visit) -> tuple[State, str]:
    section, surge_days = visit.config.checklist, _find_surge(disk)
    free = format_bytes(disk.free_bytes)
    told = tr(
        "{mount}: {used:.0f} % used, {free} free; {trend}",
        mount=disk.mount,
        used=disk.used_pct,
        free=free,
        trend=disk.trend,
    )
    if surge_days is not None:
        span = describe_days(surge_days)
        told += tr("; at the pace since the last reading in {span}", span=span)
    if disk.used_pct >= section.disk_failed_pct:
        return "failed", told
    soon = disk.days_until_full is not None and disk.days_until_full < section.disk_full_days
    full = disk.used_pct >= section.disk_attention_pct
    return ("attention" if full or soon or surge_days is not None else "ok"), told


def _find_surge(disk: DiskFacts) -> float | None:
    """Days until full at the pace since the last reading, where that is alarmingly few."""
    if len(disk.history) < 2:
        return None
    before, here = disk.history[-2:]
    span = _days_before(before, datetime.fromisoformat(here.at_utc))
    grown = here.used_bytes - before.used_bytes
    if span < SURGE_MIN_DAYS or grown <= 0:
        return None
    days = disk.free_bytes / (grown / span)
    return days if days < SURGE_FULL_DAYS else None


def _days_before(point: DiskPoint, now: datetime) -> float:
    age = age_days(point.at_utc, now)
    if age is None:
        raise ValueError(f"a reading of the disk is dated {point.at_utc!r}, which is no time")
    return age


def _rate(bytes_per_day: float) -> str:
    return tr("{amount} a day", amount=format_bytes(bytes_per_day))
