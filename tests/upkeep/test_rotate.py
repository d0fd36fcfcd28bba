"""H-1: the rotation of a log that a program keeps open, with real files, writers and kills."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import BusyError, ConfigError, InputError
from opslib.core.files import hide_name
from opslib.core.locks import hold_lock
from opslib.upkeep import live_logs
from opslib.upkeep.cut_log import collapse_works
from opslib.upkeep.rotate import LastRotation, RotateRecord, run_rotation
from tests.models import write_config
from tests.running import run_python
from tests.turns import looped, turns
from tests.upkeep.writers import ROOT, count_lines, start_writer
from tests.waiting import await_that

NAME = "cloudflared.log"
KILLS = turns(3, 8)


class Place:
    """A folder with a log, and the runs of its rotation."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.folder = folder / "cloudflared"
        self.folder.mkdir(parents=True)
        self.log = self.folder / NAME
        self.shown: list[str] = []
        self.settings = {"max_mb": 0.01, **settings}
        self.home = folder

    @property
    def config(self) -> Config:
        lines = "".join(f"  {key}: {value}\n" for key, value in self.settings.items())
        extra = f"rotate:\n  log: {json.dumps(str(self.log))}\n{lines}"
        return load_config(write_config(self.home, extra), {})

    @property
    def archives(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.gz"))

    @property
    def state(self) -> Path:
        return self.folder / f".{NAME}.rotation.json"

    def run(self, *, dry_run: bool = False) -> RotateRecord:
        return run_rotation(self.config, dry_run=dry_run, show=self.shown.append)

    def age(self, days: float) -> None:
        LastRotation(since_s=int(time.time() - days * 86_400)).write(self.state)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def truncating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a filesystem that cannot take the front off a file."""
    for folder in (Path("/dev/shm"), tmp_path_factory.mktemp("plain")):
        if folder.is_dir() and not collapse_works(folder):
            made = folder / f"pillops-test-{os.getpid()}-{random.randrange(1 << 40):x}"
            made.mkdir()
            yield made
            subprocess.run(["rm", "-r", made], check=True)
            return
    pytest.skip("every filesystem here can collapse a range")


def today() -> str:
    return datetime.now(UTC).strftime("%Y%m%d")


def test_a_large_log_becomes_an_archive_of_the_day(place: Place) -> None:
    place.log.write_bytes(b"line\n" * 4000)
    record = place.run()
    assert (record.due, record.exit_code) == ("size", 0)
    assert place.archives == [f"{NAME}.{today()}.gz"] == list(record.archives)
    assert gzip.decompress((place.folder / place.archives[0]).read_bytes()) == b"line\n" * 4000
    assert not place.log.exists()


def test_a_second_one_of_the_day_gets_a_suffix(place: Place) -> None:
    for _ in range(3):
        place.log.write_bytes(os.urandom(20_000))
        place.run()
    day = f"{NAME}.{today()}"
    assert place.archives == sorted([f"{day}.gz", f"{day}-2.gz", f"{day}-3.gz"])


def test_a_small_log_waits_for_seven_days(place: Place) -> None:
    place.log.write_bytes(b"line\n")
    assert place.run().due == ""
    place.age(6.9)
    assert place.run().due == ""
    place.age(7.01)
    assert place.run().due == "age"
    place.log.write_bytes(b"line\n")
    assert place.run().due == "", "the age counts from the last rotation"


def test_the_age_counts_from_the_first_look(place: Place) -> None:
    place.log.write_bytes(b"line\n")
    os.utime(place.log, (1, 1))
    assert place.run().due == ""
    assert abs(LastRotation.read(place.state).since_s - time.time()) < 60


@pytest.mark.parametrize("damage", ["", "{", '{"schema": "rotation-state/1", "since_s": "x"}'])
def test_a_damaged_state_is_noted_and_the_age_counts_anew(place: Place, damage: str) -> None:
    place.log.write_bytes(b"line\n")
    place.state.write_text(damage)
    assert place.run().due == ""
    assert "the age counts from today" in place.shown[0]
    assert abs(LastRotation.read(place.state).since_s - time.time()) < 60


def test_a_clock_that_was_ahead_delays_no_rotation_for_ever(place: Place) -> None:
    place.log.write_bytes(b"line\n")
    place.age(-400)
    assert place.run().due == ""
    assert "lies in the future; the age counts from today" in place.shown[0]
    assert LastRotation.read(place.state).since_s <= time.time()


def test_the_newest_ten_are_kept_and_other_files_are_left_alone(place: Place) -> None:
    others = ["config.yml", f"{NAME}.old.gz", f"x{NAME}.20200101.gz", f"{NAME}.20200101.gz.bak"]
    days = [f"{NAME}.202001{day:02d}.gz" for day in range(1, 13)]
    for name in [*others, *days]:
        (place.folder / name).write_bytes(b"")
    place.log.write_bytes(b"line\n" * 4000)
    record = place.run()
    assert list(record.deleted) == days[:3]
    kept = {path.name for path in place.folder.iterdir()}
    assert kept >= {*others, *days[3:], f"{NAME}.{today()}.gz"}
    assert not kept & set(days[:3])


def test_a_dry_run_shows_the_plan_and_changes_nothing(place: Place) -> None:
    for day in range(1, 11):
        (place.folder / f"{NAME}.202001{day:02d}.gz").write_bytes(b"")
    place.log.write_bytes(b"line\n" * 4000)
    before = sorted(path.name for path in place.folder.iterdir())
    place.run(dry_run=True)
    shown = "\n".join(place.shown)
    assert "rotate cloudflared.log (19.5 KiB): 0.01 MiB or more" in shown
    assert "delete cloudflared.log.20200101.gz" in shown
    after = sorted(p.name for p in place.folder.iterdir() if not p.name.endswith(".lock"))
    assert after == before


def test_what_cannot_be_rotated_costs_no_archive(place: Place) -> None:
    for day in range(1, 11):
        (place.folder / f"{NAME}.202001{day:02d}.gz").write_bytes(b"")
    with place.log.open("wb") as careless:
        careless.write(b"line\n" * 4000)
        careless.flush()
        record = place.run()
    assert record.exit_code == 9
    assert "writes it without appending" in record.skipped[0]
    assert len(place.archives) == 10
    assert place.log.stat().st_size == 20_000


def test_a_log_that_is_not_there_is_nothing_to_do(place: Place) -> None:
    record = place.run()
    assert (record.due, record.exit_code, record.archives) == ("", 0, ())


def test_a_folder_that_is_not_there_is_named(place: Place) -> None:
    with pytest.raises(InputError, match="no such folder; expected the folder of the log"):
        run_rotation(place.config, log=place.home / "nowhere" / NAME, show=print)


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_only_a_regular_file_is_rotated(place: Place, kind: str) -> None:
    if kind == "link":
        (place.home / "else").write_bytes(b"line\n" * 4000)
        place.log.symlink_to(place.home / "else")
    else:
        place.log.mkdir()
    with pytest.raises(InputError, match="is no regular file"):
        place.run()


@pytest.mark.parametrize("name", ["api.out", "train.err"])
def test_a_log_that_the_maintenance_rotates_is_left_to_it(place: Place, name: str) -> None:
    """Both under way at once would take the same front off twice."""
    log = place.config.logs_dir / name
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"line\n" * 4000)
    with pytest.raises(InputError, match="pillops maintain"):
        run_rotation(place.config, log=log, show=place.shown.append)
    assert [path.name for path in log.parent.iterdir()] == [name]


def test_a_second_run_at_the_same_time_ends_as_busy(place: Place) -> None:
    with hold_lock(place.folder / f".{NAME}.lock", "rotation"), pytest.raises(BusyError):
        place.run()


@pytest.mark.parametrize(("key", "value"), [("max_mb", 0), ("max_days", -1), ("keep", 0)])
def test_nonsense_in_the_configuration_is_refused_by_its_key(
    place: Place, key: str, value: float
) -> None:
    place.settings[key] = value
    with pytest.raises(ConfigError, match=f"rotate.{key}"):
        place.run()


def rotate_while_writing(place: Place, rounds: int) -> int:
    """Rotate again and again while a foreign writer appends 2,000 lines a second."""
    with start_writer("append", place.log) as writer:
        for _ in range(rounds):
            await_that(lambda: place.log.stat().st_size > 12_000)
            assert place.run().exit_code == 0
    place.run()
    return writer.lines


def test_a_writer_that_keeps_the_log_open_loses_nothing(tmp_path: Path) -> None:
    if not collapse_works(tmp_path):
        pytest.skip("this filesystem cannot collapse a range (ext4 and xfs can)")
    place = Place(tmp_path, keep=1000)
    written = rotate_while_writing(place, 8)
    assert count_lines(place.folder, NAME) == list(range(written))
    assert len(place.archives) >= 8


def test_elsewhere_it_loses_no_more_than_a_line_a_rotation(truncating: Path) -> None:
    place = Place(truncating, keep=1000)
    written = rotate_while_writing(place, 5)
    found = count_lines(place.folder, NAME)
    assert len(found) == len(set(found))
    assert written - len(found) <= 5


@looped
def test_killed_at_any_moment_under_a_writer_the_next_run_finishes_and_no_line_is_lost(
    tmp_path: Path,
) -> None:
    if not collapse_works(tmp_path):
        pytest.skip("this filesystem cannot collapse a range (ext4 and xfs can)")
    place = Place(tmp_path, keep=10_000)
    config = place.config.source
    chance = random.Random(20261125)
    with start_writer("append", place.log) as writer:
        for _ in range(KILLS):
            command = [sys.executable, "-m", "tests.upkeep.restless_rotation", str(config)]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.01, 0.4))
            process.kill()
            process.wait()
    assert place.run().exit_code == 0
    assert count_lines(place.folder, NAME) == list(range(writer.lines))
    hidden = {f".{NAME}.{end}" for end in ("lock", "rotation.json")}
    assert {p.name for p in place.folder.iterdir() if p.name.startswith(".")} <= hidden


def test_a_program_that_opens_the_log_at_that_very_moment_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told that nobody writes it, the rotation renames it, sees the writer and puts it back."""
    place = Place(tmp_path, keep=1000)
    monkeypatch.setattr(live_logs, "is_written", lambda path: False)
    monkeypatch.setattr(live_logs, "RELEASE_WAIT_S", 0.05)
    written = rotate_while_writing(place, 3)
    assert count_lines(place.folder, NAME) == list(range(written))


def test_what_is_set_aside_and_still_written_keeps_its_name_and_waits(place: Place) -> None:
    place.log.write_bytes(b"line\n" * 4000)
    aside = place.folder / f"{NAME}.{today()}"
    with aside.open("wb") as held:
        held.write(b"first\n")
        held.flush()
        record = place.run()
    assert record.exit_code == 9
    assert "a program still writes it" in record.skipped[0]
    assert place.archives == [f"{NAME}.{today()}-2.gz"]
    assert place.run().exit_code == 0
    assert gzip.decompress((place.folder / f"{NAME}.{today()}.gz").read_bytes()) == b"first\n"


def test_half_written_files_of_a_killed_run_are_removed_and_no_others(place: Place) -> None:
    endings = [f"{NAME}.20261125.gz", f".{NAME}.rotating.json", f".{NAME}.rotation.json"]
    halves = [hide_name(place.folder / ending) for ending in endings]
    others = [place.folder / name for name in (".hidden.ab12_xyz", f"{NAME}.bak", f".{NAME}.x")]
    for path in [*halves, *others]:
        path.write_bytes(b"half")
    place.run()
    assert [path.exists() for path in halves] == [False] * 3
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("kind", ["half written", "set aside"])
def test_what_cannot_be_touched_is_named_and_the_log_is_rotated(place: Place, kind: str) -> None:
    place.log.write_text("line\n" * 5000)
    stuck = place.log.with_name(f"{NAME}.{datetime.now(UTC):%Y%m%d}")
    if kind == "half written":
        stuck = hide_name(place.state)
    stuck.mkdir()
    for _ in range(2):
        record = place.run()
        assert record.exit_code == 9
        assert stuck.name in record.skipped[0]
    assert len(place.archives) == 1
    assert not place.log.exists() or place.log.stat().st_size < 4096


def test_a_killed_rename_is_finished_once(place: Place) -> None:
    """The archive is there, and what it was made from too: it is not made twice."""
    content = b"line\n" * 4000
    aside = place.folder / f"{NAME}.{today()}"
    aside.write_bytes(content)
    place.run()
    os.utime(place.folder / place.archives[0], (1_700_000_000, 1_700_000_000))
    aside.write_bytes(content)
    os.utime(aside, (1_700_000_000, 1_700_000_000))
    place.run()
    assert place.archives == [f"{NAME}.{today()}.gz"]
    assert not aside.exists()


def test_the_command_rotates_and_says_so(place: Place) -> None:
    place.log.write_bytes(b"line\n" * 4000)
    words = ["rotate", "--config", str(place.config.source)]
    answer = run_python([sys.executable, "-m", "opslib.cli", *words], timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert f"made {NAME}.{today()}.gz" in answer.stdout
