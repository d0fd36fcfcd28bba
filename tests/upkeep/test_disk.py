"""H-1: `df -h` of the disks and the experiment's own mount, each day, with warnings."""

from __future__ import annotations

import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from opslib.upkeep import disk
from opslib.upkeep.disk import find_mount, look_at_disks, read_disk_history, report_path
from tests.upkeep.places import NOW, Place, make_place


def test_the_report_is_what_df_says_of_each_mount_once(tmp_path: Path) -> None:
    place = make_place(tmp_path, "disk_warn_pct: 100")
    place.run()
    text = report_path(place.config, NOW).read_text()
    assert report_path(place.config, NOW) == place.exp / "reports" / f"disk_{NOW:%Y%m%d}.txt"
    mounts = dict.fromkeys(["/", str(find_mount(place.exp))])
    df = subprocess.run(["df", "-h", *mounts], capture_output=True, text=True, check=True)
    head = df.stdout.splitlines()[0]
    assert head.split() == text.splitlines()[2].split()
    for mount in mounts:
        assert sum(line.endswith(f" {mount}") for line in text.splitlines()) == 1


def test_a_disk_that_is_missing_is_noted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    place = make_place(tmp_path / "p", disks=f"/, {tmp_path}/data, {tmp_path}/gone")
    notes = place.run().record.notes
    assert any("data: nothing is mounted there; it lies on" in note for note in notes)
    assert any("gone: no such folder; nothing is mounted there" in note for note in notes)
    assert "nothing is mounted there" in report_path(place.config, NOW).read_text()


def test_a_disk_that_cannot_be_looked_at_or_hangs_is_noted_and_the_record_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(tmp_path, disks="/, locked, hung")
    for name in ("locked", "hung"):
        (tmp_path / name).mkdir()
    measure, ended = disk.find_mount, threading.Event()

    def find_mount(path: Path) -> Path:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        if path.name == "hung":
            ended.wait()
        return measure(path)

    monkeypatch.setattr(disk, "_DEADLINE_S", 0.5)
    monkeypatch.setattr(disk, "find_mount", find_mount)
    done = place.run()
    ended.set()
    assert "locked: cannot be looked at: Permission denied" in done.record.notes
    assert "hung: no answer within 0.5 s" in done.record.notes
    assert done.path.is_file()


def test_a_disk_fuller_than_allowed_is_warned_of(tmp_path: Path) -> None:
    place = make_place(tmp_path, "disk_warn_pct: 0.001")
    record = place.run().record
    assert "/ is " in record.warnings[0]
    assert "over 0.001 %" in record.warnings[0]
    assert f"warning: {record.warnings[0]}" in report_path(place.config, NOW).read_text()


def test_the_history_grows_by_each_round_and_survives_a_torn_line(place: Place) -> None:
    place.run()
    path = place.exp / "reports" / "disk_history.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at_utc": "2026')
    place.run(NOW + timedelta(days=1))
    history = read_disk_history(place.config)
    assert [one.at_utc[:10] for one in history if one.mount == "/"] == [
        f"{NOW:%Y-%m-%d}",
        f"{NOW + timedelta(days=1):%Y-%m-%d}",
    ]
    assert all(0 < one.used_bytes <= one.total_bytes for one in history)
    assert path.read_text().count("\n") == len(history)


def test_looking_writes_nothing(place: Place) -> None:
    look_at_disks(place.config, NOW)
    assert not place.files()


def test_there_is_no_history_at_first(place: Place) -> None:
    assert read_disk_history(place.config) == ()
