"""What a round did is written down as it goes: SIGTERM and SIGKILL leave an account of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from opslib.core.errors import ExitCode
from opslib.upkeep.maintenance_record import MaintenanceRecord, find_journals, read_journal
from tests.upkeep.places import Place
from tests.waiting import await_that

COUNT = 400


def fill(place: Place) -> list[Path]:
    """Give a round reports to delete."""
    day = place.config.report_dir / "2020-01-01"
    made = []
    for number in range(COUNT):
        folder = day / f"{number:06d}-01_bench-abcdef"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"status": "finished"}')
        made.append(folder)
    return made


def end_halfway(place: Place, how: signal.Signals) -> tuple[int, str]:
    """Start a round and end it once it has deleted something; return its exit code and output."""
    command = [
        sys.executable,
        "-m",
        "opslib.upkeep.maintain_command",
        "--config",
        str(place.config_path),
    ]
    output = place.config_path.with_name("output.txt")  # a pipe would be full before it is read
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def has_deleted() -> bool:
        found = find_journals(place.config.records_dir)
        return bool(found) and found[0].read_bytes().count(b'{"done"') > 3

    await_that(has_deleted, "the first deletions")
    process.send_signal(how)
    return process.wait(60), output.read_text()


def test_sigterm_leaves_the_record_of_what_was_deleted(place: Place) -> None:
    made = fill(place)
    code, said = end_halfway(place, signal.SIGTERM)
    assert code == ExitCode.TERMINATED
    gone = [path for path in made if not path.exists()]
    (kept,) = place.config.records_dir.glob("maintenance_*")
    record = MaintenanceRecord.read(kept)
    assert 3 < len(gone) < COUNT - 1
    assert len(gone) - len(record.done) in (0, 1), "the one under way is named as that"
    assert "the round was ended after" in record.warnings[0]
    assert str(kept) in said


def test_sigkill_leaves_a_journal_that_the_next_round_makes_a_record_of(place: Place) -> None:
    made = fill(place)
    end_halfway(place, signal.SIGKILL)
    gone = [path for path in made if not path.exists()]
    (journal,) = find_journals(place.config.records_dir)
    record, pid = read_journal(journal)
    assert pid > 0
    assert len(gone) - len(record.done) in (0, 1)
    place.run()
    assert not find_journals(place.config.records_dir)
    kept = MaintenanceRecord.read(journal.with_suffix(".json"))
    assert kept.done == record.done
    assert "was killed after" in kept.warnings[0]
    left = {path.parent.name for path in place.config.report_dir.rglob("run.json")}
    assert left == {made[-1].name}, "the newest stays, the rest was finished"


def test_a_step_under_way_and_a_torn_line_are_told_as_such(place: Place) -> None:
    folder = place.config.records_dir
    folder.mkdir()
    path = folder / "maintenance_20260101-020000.jsonl"
    path.write_text(
        '{"round": {"pid": 7, "started_at_utc": "2026-01-01T02:00:00+00:00", "exp_dir": "x"}}\n'
        '{"begin": {"duty": "reports", "target": "a"}}\n'
        '{"done": {"duty": "reports", "verb": "delete", "target": "a", "why": "old", '
        '"freed_bytes": 5}}\n{"begin": {"duty": "reports", "target": "b"}}\n{"done": {"du'
    )
    record, _ = read_journal(path)
    assert [item.target for item in record.done] == ["a"]
    assert [one.target for one in record.skipped] == ["b"]
    assert record.freed_bytes == 5
    path.write_bytes(b"\xff\n[1]\n{}\n")
    assert read_journal(path)[0].done == ()
