"""H-9: how full the disks are, and when they will be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from opslib.core.config import Config
from opslib.core.formatting import utc_now
from opslib.ops.checklist.disks import check_disks, describe_disk
from opslib.ops.checklist.items import DiskPoint
from opslib.upkeep.disk import HISTORY_FILE, DiskReport
from opslib.upkeep.maintenance_record import DiskUse
from tests.ops.checklist.conftest import Plant

GIB = 1 << 30
NOW = utc_now()


def use(used_gib: float, *, days_ago: float = 0.0, size_gib: float = 1000.0) -> DiskUse:
    return DiskUse(
        at_utc=(NOW - timedelta(days=days_ago)).isoformat(timespec="seconds"),
        mount="/mnt/data",
        total_bytes=int(size_gib * GIB),
        used_bytes=int(used_gib * GIB),
        free_bytes=int((size_gib - used_gib) * GIB),
    )


def look_at(*disks: DiskUse) -> object:
    def look(_config: Config, _now: datetime) -> DiskReport:
        return DiskReport(disks, (), (), "")

    return look


def points(*used_gib: float) -> list[DiskPoint]:
    """Readings one a day, the last one a day ago."""
    days = range(len(used_gib), 0, -1)
    readings = [use(gib, days_ago=day) for gib, day in zip(used_gib, days, strict=True)]
    return [DiskPoint(at_utc=one.at_utc, used_bytes=one.used_bytes) for one in readings]


@pytest.mark.parametrize(
    ("used_gib", "state"), [(500, "ok"), (849, "ok"), (850, "attention"), (950, "failed")]
)
def test_a_disk_is_judged_by_how_full_it_is(resting: Plant, used_gib: float, state: str) -> None:
    answer = check_disks(resting.visit(now=NOW), look_at(use(used_gib)))  # type: ignore[arg-type]
    assert answer.state == state
    assert f"{used_gib / 10:.0f} % used" in answer.evidence[0]
    assert (answer.next_step is None) == (state == "ok")


def test_the_thresholds_are_the_configuration_s(resting: Plant) -> None:
    keys = {"checklist__disk_attention_pct": "40", "checklist__disk_failed_pct": "45"}
    assert check_disks(resting.visit(now=NOW, **keys), look_at(use(500))).state == "failed"  # type: ignore[arg-type]


def test_the_real_disk_is_read(resting: Plant) -> None:
    answer = check_disks(resting.visit())
    facts = os.statvfs("/")
    usable = facts.f_blocks - facts.f_bfree + facts.f_bavail
    used_pct = 100 * (facts.f_blocks - facts.f_bfree) / usable
    assert answer.disks[0].mount == "/"
    assert answer.disks[0].used_pct == pytest.approx(used_pct, abs=2)
    low = {"checklist__disk_attention_pct": "0.001", "checklist__disk_failed_pct": "0.002"}
    assert check_disks(resting.visit(**low)).state == "failed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB; skipped where this account may mount none."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "pillops-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root and the right to it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_at_95_percent_has_failed(resting: Plant, small_disk: Path) -> None:
    visit = resting.visit(maintenance__disks=str(small_disk))
    assert check_disks(visit).state == "ok"
    (small_disk / "file").write_bytes(b"x" * int(4 * 0.955 * (1 << 20)))
    answer = check_disks(visit)
    assert answer.state == "failed"
    assert f"{small_disk}: 9" in answer.evidence[0]


def test_a_steady_growth_says_when_the_disk_is_full(resting: Plant) -> None:
    disk = describe_disk(use(600), points(*(600 - 10.0 * day for day in range(20, 0, -1))), NOW)
    assert disk.growth_bytes_per_day == pytest.approx(10 * GIB, rel=0.01)
    assert disk.days_until_full == pytest.approx(40, rel=0.01)
    assert disk.trend.startswith("growing by 10 GiB a day, full in 40 days")


def test_what_maintenance_deletes_now_and_then_does_not_bend_the_trend() -> None:
    saw = [600 - 10.0 * day + 12 * (day % 5) for day in range(30, 0, -1)]
    disk = describe_disk(use(600), points(*saw), NOW)
    assert disk.growth_bytes_per_day == pytest.approx(10 * GIB, rel=0.1)
    low, high = disk.growth_ci95_bytes_per_day or (0, 0)
    assert low <= 10 * GIB <= high
    assert disk.days_until_full_earliest is not None
    assert disk.days_until_full is not None
    assert disk.days_until_full_earliest <= disk.days_until_full


def test_a_disk_that_fills_soon_wants_attention_long_before_it_is_full(resting: Plant) -> None:
    history = [use(700 - 12.0 * day, days_ago=day) for day in range(20, 0, -1)]
    path = resting.config().records_dir / HISTORY_FILE
    path.write_text("".join(f"{one.model_dump_json()}\n" for one in history))
    answer = check_disks(resting.visit(now=NOW), look_at(use(700)))  # type: ignore[arg-type]
    assert answer.state == "attention"
    assert "full in 25 days" in answer.evidence[0]
    assert len(answer.disks[0].history) == 21
    slower = resting.visit(now=NOW, checklist__disk_full_days="20")
    assert check_disks(slower, look_at(use(700))).state == "ok"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("history", "trend"),
    [
        ([], "no trend yet (1 reading)"),
        ([500.0] * 3, "no trend yet (4 readings over 3 days)"),
        ([600.0 - day for day in range(20)], "shrinking by"),
        ([600.0, 599.0] * 10, "no clear growth"),
    ],
    ids=["none", "short", "shrinking", "level"],
)
def test_no_more_is_said_of_a_trend_than_the_readings_support(
    history: list[float], trend: str
) -> None:
    now = history[-1] if history else 600.0
    disk = describe_disk(use(now), points(*history), NOW)
    assert disk.trend.startswith(trend)
    assert disk.days_until_full is None


def test_a_sudden_surge_wants_attention_before_a_trend_shows_it(resting: Plant) -> None:
    history = [use(500, days_ago=day) for day in range(20, 0, -1)]
    path = resting.config().records_dir / HISTORY_FILE
    path.write_text("".join(f"{one.model_dump_json()}\n" for one in history))
    answer = check_disks(resting.visit(now=NOW), look_at(use(800)))  # type: ignore[arg-type]
    assert answer.state == "attention"
    assert "at the pace since the last reading in 16 hours" in answer.evidence[0]


def test_a_disk_that_is_not_mounted_wants_attention_outside_the_demo(resting: Plant) -> None:
    keys = {"maintenance__disks": "/no/such/disk"}
    answer = check_disks(resting.visit(**keys))
    assert answer.state == "attention"
    assert "/no/such/disk: no such folder" in answer.evidence[0]
    (resting.config().exp_dir / ".demo.json").write_text("{}")
    assert check_disks(resting.visit(**keys)).state == "ok"
