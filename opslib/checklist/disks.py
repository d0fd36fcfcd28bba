"""How full the disks are, and when they will be if they go on like this."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from opslib.checklist.ages import DAY_S, describe_days
from opslib.checklist.facts import DiskFacts, DiskPoint
from opslib.checklist.items import Answer, State, Visit, answer_worst
from opslib.core.formatting import format_bytes, plural
from opslib.upkeep.disk import read_disk_history

MIN_POINTS = 7
MIN_SPAN_DAYS = 5.0
HISTORY_DAYS = 60.0
CONFIDENCE = 0.95
SURGE_FULL_DAYS = 2.0
SURGE_MIN_DAYS = 0.25
FREE_UP = "free it: `pillops maintenance --dry-run` shows what it would delete; then look at `du`"


class Usage(Protocol):
    """What `shutil.disk_usage` returns, in bytes."""

    @property
    def total(self) -> int:
        """The size of the file system."""

    @property
    def used(self) -> int:
        """What files take of it."""

    @property
    def free(self) -> int:
        """What an ordinary account may still write."""


ReadUsage = Callable[[Path], Usage]


def check_disks(visit: Visit, read_usage: ReadUsage = shutil.disk_usage) -> Answer:
    """Return how full each disk is, its trend, and when it will be full.

    Args:
        read_usage: how the use of a mounted file system is read.
    """
    config = visit.config
    history: dict[str, list[DiskPoint]] = {}
    for one in read_disk_history(config):
        point = DiskPoint(at_utc=one.at_utc, used_bytes=one.used_bytes)
        history.setdefault(one.mount, []).append(point)
    found: list[tuple[State, str]] = []
    disks = []
    for mount in find_mounts((*config.maintenance.disks, config.exp_dir)):
        use = read_usage(mount)
        points = history.get(str(mount), [])
        disk = describe_disk(str(mount), use, points, visit.now)
        disks.append(disk)
        found.append(_judge(disk, visit, _find_surge(disk)))
    absent = [str(path) for path in config.maintenance.disks if not path.exists()]
    if absent:
        state: State = "ok" if config.is_demo else "attention"
        found.append((state, f"not on this host: {', '.join(absent)} (maintenance.disks)"))
    answer = answer_worst(found, (FREE_UP,))
    return answer.model_copy(update={"disks": tuple(disks)})


def find_mounts(paths: Iterable[Path]) -> list[Path]:
    """Return the mount points of those `paths` that are there, each file system once."""
    found: dict[int, Path] = {}
    for path in paths:
        try:
            device = path.stat().st_dev
        except OSError:
            continue
        mount = path.resolve()
        while not os.path.ismount(mount):
            mount = mount.parent
        found.setdefault(device, mount)
    return list(found.values())


def describe_disk(
    mount: str, use: Usage, history: Sequence[DiskPoint], now: datetime
) -> DiskFacts:
    """Return the facts of one disk: its use as `df` shows it, and what its history tells.

    Growth is Theil and Sen's slope, the median over all pairs of points, so that what maintenance
    deletes now and then does not bend it.
    """
    here = DiskPoint(at_utc=now.isoformat(timespec="seconds"), used_bytes=use.used)
    points = [p for p in history if 0 < _days_before(p, now) <= HISTORY_DAYS]
    points = [*sorted(points, key=lambda point: point.at_utc), here]
    facts = DiskFacts(
        mount=mount,
        total_bytes=use.total,
        used_bytes=use.used,
        free_bytes=use.free,
        used_pct=100 * use.used / max(1, use.used + use.free),
        trend="",
        history=tuple(points),
    )
    span = _days_before(points[0], now)
    if len(points) < MIN_POINTS or span < MIN_SPAN_DAYS:
        seen = f"{plural(len(points), 'reading')} over {describe_days(span)}"
        return facts.model_copy(update={"trend": f"no trend yet ({seen})"})
    return _with_trend(facts, [-_days_before(point, now) for point in points])


def _with_trend(facts: DiskFacts, days: list[float]) -> DiskFacts:
    from scipy.stats import theilslopes

    used = [float(point.used_bytes) for point in facts.history]
    slope, _, low, high = (float(v) for v in theilslopes(used, days, CONFIDENCE))
    growth = {"growth_bytes_per_day": slope, "growth_ci95_bytes_per_day": (low, high)}
    if high < 0:
        return facts.model_copy(update={"trend": f"shrinking by {_rate(-slope)}", **growth})
    if low <= 0:
        return facts.model_copy(update={"trend": "no clear growth", **growth})
    until, earliest = facts.free_bytes / slope, facts.free_bytes / high
    trend = f"growing by {_rate(slope)}, full in {describe_days(until)}"
    trend += f" (at the earliest {describe_days(earliest)})"
    full = {"days_until_full": until, "days_until_full_earliest": earliest}
    return facts.model_copy(update={"trend": trend, **growth, **full})


def _judge(disk: DiskFacts, visit: Visit, surge_days: float | None) -> tuple[State, str]:
    section = visit.config.checklist
    told = (
        f"{disk.mount}: {disk.used_pct:.0f} % used, {format_bytes(disk.free_bytes)} free; "
        f"{disk.trend}"
    )
    if surge_days is not None:
        told += f"; at the pace since the last reading in {describe_days(surge_days)}"
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
    moment = datetime.fromisoformat(point.at_utc)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (now - moment).total_seconds() / DAY_S


def _rate(bytes_per_day: float) -> str:
    return f"{format_bytes(bytes_per_day)} a day"
