"""H-1: logs go compressed into the archive when they are old or large, and are kept 30 days."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from opslib.core.errors import ConfigError, StorageError
from opslib.core.files import hide_name
from opslib.upkeep import gzip_logs
from opslib.upkeep.gzip_logs import compress_file
from opslib.upkeep.logs import plan_logs
from opslib.upkeep.rounds import Round
from tests.upkeep.places import NOW, Place, make_place, set_age, stamp_of


def archives(place: Place) -> dict[str, bytes]:
    folder = place.exp / "logs" / "archive"
    return {path.name: gzip.decompress(path.read_bytes()) for path in folder.glob("*.gz")}


def test_only_logs_older_than_seven_days_are_compressed(place: Place) -> None:
    for name in ("train.out", "train.err", "api.err", "perf_bench.json", "notes.txt"):
        place.write(f"logs/{name}", days=7.5)
    place.write("logs/export.out", days=6.9)
    place.write("logs/tomorrow.out", days=-3)
    place.run()
    assert sorted(archives(place)) == [
        f"api.err.{stamp_of(7.5)}.gz",
        f"train.err.{stamp_of(7.5)}.gz",
        f"train.out.{stamp_of(7.5)}.gz",
    ]
    left = {path.name for path in (place.exp / "logs").iterdir()}
    assert left == {"archive", "export.out", "perf_bench.json", "notes.txt", "tomorrow.out"}


def test_an_archive_holds_the_same_bytes_with_the_same_date_and_mode(place: Place) -> None:
    data = os.urandom(3 << 20) + b"the last line\n" * 5000
    log = place.write("logs/train.out", data, days=8)
    log.chmod(0o640)
    before = log.stat()
    place.run()
    path = next((place.exp / "logs" / "archive").glob("train.out.*.gz"))
    assert gzip.decompress(path.read_bytes()) == data
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_mode == before.st_mode


def test_a_taken_name_gets_a_suffix(place: Place) -> None:
    place.write(f"logs/archive/train.out.{stamp_of(8)}.gz", gzip.compress(b"other\n"), days=8)
    place.write("logs/train.out", b"mine\n", days=8)
    place.run()
    assert archives(place) == {
        f"train.out.{stamp_of(8)}.gz": b"other\n",
        f"train.out.{stamp_of(8)}-2.gz": b"mine\n",
    }


def test_a_run_killed_before_it_removed_the_log_leaves_no_second_archive(tmp_path: Path) -> None:
    log, archive = tmp_path / "train.out", tmp_path / "archive"
    log.write_bytes(b"line\n" * 1000)
    kept = log.read_bytes(), log.stat()
    made, _ = compress_file(log, archive)
    log.write_bytes(kept[0])
    os.utime(log, ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))
    assert compress_file(log, archive)[0] == made
    assert not log.exists()
    assert list(archive.iterdir()) == [made]


def test_a_log_that_grows_while_it_is_compressed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, archive = tmp_path / "train.out", tmp_path / "archive"
    log.write_bytes(b"line\n" * 1000)
    packed = gzip_logs.compress_range

    def grow(*arguments: object) -> int:
        size = packed(*arguments)  # type: ignore[arg-type]
        with log.open("ab") as file:
            file.write(b"late\n")
        return size

    monkeypatch.setattr(gzip_logs, "compress_range", grow)
    with pytest.raises(StorageError, match="written to"):
        compress_file(log, archive)
    assert log.read_bytes().endswith(b"late\n")
    assert not list(archive.iterdir())


def test_archives_are_deleted_after_thirty_days(place: Place) -> None:
    place.write("logs/archive/old.out.gz", days=30.5)
    place.write("logs/archive/young.out.gz", days=29.5)
    place.write("logs/archive/readme.txt", days=300)
    place.run()
    left = {path.name for path in (place.exp / "logs" / "archive").iterdir()}
    assert left == {"young.out.gz", "readme.txt"}


def test_a_log_older_than_archives_are_kept_goes_at_once(place: Place) -> None:
    place.write("logs/train.out", days=31)
    place.write("logs/empty.err", b"", days=8)
    place.run()
    assert not archives(place)
    assert {path.name for path in (place.exp / "logs").iterdir()} == {"archive"}
    assert not place.targets()


def test_a_large_log_is_rotated_although_it_is_young(tmp_path: Path) -> None:
    place = make_place(tmp_path, "rotate_mb: 0.01")
    place.write("logs/api.out", b"line\n" * 3000, days=0)
    place.write("logs/api.err", b"line\n" * 1000, days=0)
    assert place.targets() == ["logs/api.out"]
    place.run()
    assert archives(place) == {f"api.out.{stamp_of(0)}.gz": b"line\n" * 3000}


def test_an_old_log_that_is_held_open_is_not_taken_from_its_writer(place: Place) -> None:
    lines = b"".join(b"quiet line %d\n" % number for number in range(2000))
    log = place.write("logs/api.err", lines, days=9)
    with log.open("ab", buffering=0) as writer:
        set_age(log, 9)
        place.run()
        writer.write(b"heard again\n")
    assert log.read_bytes().endswith(b"heard again\n")
    together = b"".join(archives(place).values()) + log.read_bytes()
    assert [line for line in together.splitlines() if line.strip()] == [
        *lines.splitlines(),
        b"heard again",
    ]


def test_a_small_old_log_that_is_held_open_stays_as_it_is(place: Place) -> None:
    log = place.write("logs/api.err", b"one line\n", days=9)
    with log.open("ab"):
        set_age(log, 9)
        assert not place.targets()


def test_links_are_neither_compressed_nor_followed(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("a.out", "b.gz"):
        set_age((outside / name).absolute(), 0) if (outside / name).exists() else None
        (outside / name).write_bytes(b"theirs\n")
        set_age(outside / name, 90)
    (place.exp / "logs").mkdir()
    (place.exp / "logs" / "linked.out").symlink_to(outside / "a.out")
    (place.exp / "logs" / "archive").symlink_to(outside)
    record = place.run().record
    assert {path.name for path in outside.iterdir()} == {"a.out", "b.gz"}
    assert {item.target for item in record.skipped} == {"logs", "log archive"}
    assert "a link leads out of the experiment" in record.skipped[0].reason


def test_a_log_that_cannot_be_archived_is_skipped_and_the_others_are_not(place: Place) -> None:
    place.write(f"logs/{'x' * 245}.out", days=8)
    place.write("logs/train.out", days=8)
    record = place.run().record
    assert [item.duty for item in record.skipped] == ["logs"]
    assert "name too long" in record.skipped[0].reason.lower()
    assert len(archives(place)) == 1
    assert (place.exp / "logs" / f"{'x' * 245}.out").exists()


def test_a_name_that_is_no_text_is_compressed_like_any_other(place: Place) -> None:
    place.write(os.fsdecode(b"logs/tr\xff\nain.out"), days=8)
    done = place.run()
    assert r"tr\udcff\nain.out" in done.record.done[0].target
    assert done.record.read(done.path) == done.record
    assert len(archives(place)) == 1


def test_what_a_dead_run_left_of_an_archive_is_removed(place: Place) -> None:
    name = hide_name(Path("train.out.20261117-020000.gz")).name
    left = place.write(f"logs/archive/{name}", b"half", days=0)
    left.chmod(0o600)
    place.run()
    assert not left.exists()


def test_bytes_freed_are_what_the_disk_got_back(place: Place) -> None:
    data = b"a line that packs well\n" * 10_000
    place.write("logs/train.out", data, days=8)
    record = place.run(NOW).record
    packed = next((place.exp / "logs" / "archive").glob("*.gz")).stat().st_size
    assert record.freed_bytes == len(data) - packed
    assert record.freed_by_duty_bytes == {"logs": len(data) - packed}


THEIR_LOGS = 'log_patterns: ["*.out", "*.err", "*.log"]'


def test_logs_of_other_names_are_looked_after_where_their_patterns_say_so(tmp_path: Path) -> None:
    place = make_place(tmp_path, THEIR_LOGS)
    errors = "pillsnap_errors_20261101.log"
    for name in (errors, "train.out", "notes.txt"):
        place.write(f"logs/{name}", f"{name}\n", days=8)
    renamed = f"{errors}.{stamp_of(9)}"  # by a run that was killed before it compressed it
    place.write(f"logs/{renamed}", "before\n", days=9)
    place.write("logs/cloudflared.log", "tunnel\n", days=40)
    place.write(f"logs/cloudflared.log.{stamp_of(40)}", "tunnel\n", days=40)
    place.run()
    assert archives(place) == {
        f"{errors}.{stamp_of(8)}.gz": f"{errors}\n".encode(),
        f"{renamed}.gz": b"before\n",
        f"train.out.{stamp_of(8)}.gz": b"train.out\n",
    }
    left = {path.name for path in (place.exp / "logs").iterdir() if path.is_file()}
    assert left == {"notes.txt", "cloudflared.log", f"cloudflared.log.{stamp_of(40)}"}


def test_without_them_they_are_left_as_before(place: Place) -> None:
    for name in ("x_errors_1.log", f"x_errors_1.log.{stamp_of(40)}"):
        place.write(f"logs/{name}", days=40)
    place.write(f"logs/train.out.{stamp_of(9)}", days=9)
    place.run()
    assert list(archives(place)) == [f"train.out.{stamp_of(9)}.gz"]
    assert len(list((place.exp / "logs").glob("x_errors*"))) == 2


def test_a_large_log_of_another_name_is_cut_under_its_writer(tmp_path: Path) -> None:
    place = make_place(tmp_path, f"{THEIR_LOGS}\nrotate_mb: 0.01")
    log = place.write("logs/x_errors_1.log", b"line\n" * 40_000)
    with log.open("ab") as writer:
        place.run()
        writer.write(b"after\n")
    kept = b"".join(data for _, data in sorted(archives(place).items())) + log.read_bytes()
    assert kept.replace(b" ", b"").replace(b"\n\n", b"\n").count(b"line\n") == 40_000
    assert log.stat().st_size < 10_000
    assert log.read_bytes().endswith(b"after\n")


@pytest.mark.parametrize("pattern", ["../*.log", "logs/**", ".*", "''"])
def test_a_pattern_of_logs_elsewhere_is_refused(tmp_path: Path, pattern: str) -> None:
    place = make_place(tmp_path, f"log_patterns: [{pattern}]")
    with pytest.raises(ConfigError, match=r"maintenance\.log_patterns.*expected a file name"):
        place.plan()


def test_the_note_of_the_other_rotation_is_left_to_it(place: Place) -> None:
    logs = place.exp / "logs"
    logs.mkdir(exist_ok=True)
    config = place.config.maintenance.model_copy(update={"log_patterns": ("*.out", "*.log")})
    theirs = logs / ".cloudflared.log.rotating.json"
    theirs.write_text("{}")
    this = Round(place.config.model_copy(update={"maintenance": config}), NOW)
    assert [one for one in plan_logs(this).actions if theirs.name in one.target] == []
