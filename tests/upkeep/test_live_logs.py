"""H-1: a log that is written every day is rotated, and its writer loses no line."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from opslib.core.errors import StorageError
from opslib.serving.keys import HEADER
from opslib.serving.staging import start_service
from opslib.upkeep import cut_log, live_logs
from opslib.upkeep.cut_log import collapse_works, finish_cut, plan_cut, remember_cut
from opslib.upkeep.open_files import find_writers, is_written
from tests.serving.conftest import make_place as make_serving_place
from tests.turns import looped, turns
from tests.upkeep.killing import kill_under_writer
from tests.upkeep.places import Place, make_place
from tests.upkeep.writers import count_lines, start_writer
from tests.waiting import await_that

SMALL = "rotate_mb: 0.02"
KILLS = turns(2, 6)


@pytest.fixture
def collapsing(tmp_path: Path) -> Path:
    """A folder on a filesystem that can take the front off a file."""
    if not collapse_works(tmp_path):
        pytest.skip("this filesystem cannot collapse a range (ext4 and xfs can)")
    return tmp_path


@pytest.fixture
def truncating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a filesystem that cannot: the one in memory, where there is one."""
    for folder in (Path("/dev/shm"), tmp_path_factory.mktemp("plain")):
        if folder.is_dir() and not collapse_works(folder):
            made = folder / f"pillops-test-{os.getpid()}-{random.randrange(1 << 40):x}"
            made.mkdir()
            yield made
            subprocess.run(["rm", "-r", made], check=True)
            return
    pytest.skip("every filesystem here can collapse a range")


def rotate_while_writing(place: Place, kind: str, rounds: int = 8) -> tuple[int, list[int]]:
    """Maintain again and again while a writer writes; its number of lines, and those found."""
    with start_writer(kind, place.exp / "logs" / "api.out") as writer:
        for _ in range(rounds):
            await_that(lambda: place.targets())
            place.run()
    place.run()
    assert len(list((place.exp / "logs" / "archive").iterdir())) >= rounds
    return writer.lines, count_lines(place.exp / "logs", "api.out")


def test_a_writer_that_opens_its_log_anew_loses_nothing(tmp_path: Path) -> None:
    place = make_place(tmp_path, f"{SMALL}\nreopened_logs: [api.out]")
    written, found = rotate_while_writing(place, "ours")
    assert found == list(range(written))


def test_a_foreign_writer_loses_nothing_where_the_front_can_be_taken_off(collapsing: Path) -> None:
    place = make_place(collapsing / "place", SMALL)
    written, found = rotate_while_writing(place, "append")
    assert found == list(range(written))


def test_elsewhere_a_foreign_writer_loses_no_more_than_a_line_a_rotation(truncating: Path) -> None:
    place = make_place(truncating / "place", SMALL)
    written, found = rotate_while_writing(place, "append", rounds=5)
    assert len(found) == len(set(found))
    assert set(found) <= set(range(written))
    assert written - len(found) <= 5


@looped
def test_killed_at_any_moment_it_loses_no_line_of_our_writer(tmp_path: Path) -> None:
    place = make_place(tmp_path, f"{SMALL}\nreopened_logs: [api.out]")
    counted = kill_under_writer(place, "ours", KILLS, seed=1)
    assert (counted.lost, counted.repeated) == (0, 0)


@looped
def test_killed_at_any_moment_it_loses_no_line_of_a_foreign_writer(collapsing: Path) -> None:
    place = make_place(collapsing / "place", SMALL)
    counted = kill_under_writer(place, "append", KILLS, seed=2)
    assert (counted.lost, counted.repeated) == (0, 0)


@looped
def test_killed_at_any_moment_a_truncation_repeats_no_line(truncating: Path) -> None:
    place = make_place(truncating / "place", SMALL)
    counted = kill_under_writer(place, "append", KILLS, seed=3)
    assert counted.repeated == 0
    assert counted.lost <= counted.rotations


@pytest.mark.parametrize("step", ["compress_range", "_mark", "collapse_front", "forget_cut"])
def test_a_cut_that_is_killed_between_its_steps_is_finished_once(
    collapsing: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    place = make_place(collapsing / "place", SMALL)
    log = place.write("logs/api.out", b"".join(b'{"n": %d}\n' % n for n in range(5000)))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with log.open("ab", buffering=0) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(live_logs if step == "compress_range" else cut_log, step, die)
            with pytest.raises(KeyboardInterrupt):
                place.run()
        writer.write(b"".join(b'{"n": %d}\n' % n for n in range(5000, 5100)))
        place.run()
        place.run()
    assert count_lines(place.exp / "logs", "api.out") == list(range(5100))


def test_a_log_that_was_replaced_since_a_killed_run_is_left_as_it_is(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    log = place.write("logs/api.out", b"first line\n" * 1000)
    with log.open("rb") as file:
        cut = plan_cut(file.fileno(), log, "api.out.x.gz", "truncate", "api.out.tail")
    assert cut is not None
    remember_cut(log.parent, cut)
    inode = log.stat().st_ino
    log.write_bytes(b"other line\n" * 1000)  # the same file, as if its number were used again
    assert log.stat().st_ino == inode
    assert finish_cut(log.parent, cut) is False
    assert log.read_bytes() == b"other line\n" * 1000


@pytest.mark.usefixtures("plain_processes")  # it is known by its command line
def test_our_running_service_is_known_and_goes_on_in_a_new_file(tmp_path: Path) -> None:
    serving = make_serving_place(tmp_path, "maintenance: {rotate_mb: 0.01, disks: [/]}\n")
    place = Place(serving.config_path)
    log = place.exp / "logs" / "api.out"
    with start_service(serving.config_path, variables={"RATE_LIMIT_PER_MIN": "1000"}) as service:
        headers = {HEADER: service.key}  # whoever has no key is logged a few times a minute
        with httpx.Client(base_url=service.url, headers=headers, trust_env=False) as client:
            for _ in range(100):
                client.get("/version")
            assert [writer.reopens for writer in find_writers(log)] == [True]
            lines = log.read_text().splitlines()
            assert place.run().record.done[0].verb == "rotate"  # it is idle: nothing is compressed
            assert not log.exists()
            client.get("/version")
        await_that(log.exists)
        record = place.run().record
        assert record.done[0].verb == "compress"
    archives = list((place.exp / "logs" / "archive").iterdir())
    assert len(archives) == 1
    assert gzip.decompress(archives[0].read_bytes()).decode().splitlines() == lines
    assert len(log.read_text().splitlines()) == 1


def test_what_a_shell_redirects_into_a_log_is_not_taken_for_the_service(tmp_path: Path) -> None:
    log = tmp_path / "api.out"
    code = "import sys, time; print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, "opslib.cli", "serve"]
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sink)
    try:
        await_that(lambda: log.read_bytes() == b"ready\n")
        assert [writer.reopens for writer in find_writers(log)] == [False]
        assert is_written(log)
    finally:
        process.communicate()
    assert not is_written(log)


def test_a_writer_that_does_not_append_is_named_and_left_alone(tmp_path: Path) -> None:
    place = make_place(tmp_path, SMALL)
    log = place.exp / "logs" / "train.out"
    log.parent.mkdir()
    with log.open("wb") as writer:
        writer.write(b"line\n" * 8000)
        writer.flush()
        record = place.run().record
        assert log.read_bytes() == b"line\n" * 8000
    assert f"process {os.getpid()} writes it without appending" in record.skipped[0].reason


def test_a_line_is_whole_in_one_place(collapsing: Path) -> None:
    place = make_place(collapsing / "place", SMALL)
    log = place.write("logs/train.out", b"%060d\n" % 7 * 900)
    with log.open("ab", buffering=0) as writer:
        writer.write(b"unfinished")
        place.run()
        writer.write(b" business\n")
        archive = next((place.exp / "logs" / "archive").iterdir())
        assert gzip.decompress(archive.read_bytes()) == b"%060d\n" % 7 * 900
        first, rest = log.read_bytes().split(b"\n", 1)
        assert not first.strip()
        assert rest == b"unfinished business\n"


def test_a_disk_that_refuses_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(tmp_path, SMALL)
    log = place.write("logs/train.out", b"line\n" * 8000)

    def refuse(*_: object) -> int:
        raise StorageError("the disk is full")

    monkeypatch.setattr(live_logs, "compress_range", refuse)
    with log.open("ab"):
        record = place.run().record
    assert [item.reason for item in record.skipped] == ["the disk is full"]
    assert log.read_bytes() == b"line\n" * 8000
    monkeypatch.undo()
    place.run()
    assert len(list((place.exp / "logs" / "archive").iterdir())) == 1
