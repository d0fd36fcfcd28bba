"""What is asked before each deletion is asked anew, at a cost that stays a share of the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opslib.core import lately
from opslib.core.lately import Lately
from opslib.upkeep.gzip_logs import compress_file
from tests.upkeep.places import Place, set_age


def test_an_answer_holds_ten_times_as_long_as_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = 100.0, list[float]()

    def look() -> int:
        nonlocal now
        looks.append(now)
        now += 2.0
        return len(looks)

    monkeypatch.setattr(lately.time, "monotonic", lambda: now)
    found = Lately(look)
    assert found.get() == 1
    now += 19.9
    assert found.get() == 1
    now += 0.2
    assert found.get() == 2
    assert len(looks) == 2


def test_a_checkpoint_that_is_linked_after_the_plan_stays(place: Place) -> None:
    for number in range(5):
        place.write(f"checkpoints/last_{number}.pt", days=60 - number)
    planned = place.plan()
    (place.exp / "checkpoints" / "keep.pt").symlink_to("last_2.pt")
    outcome = planned.plan.execute()
    assert [one.action.target for one in outcome.skipped] == ["checkpoints/last_2.pt"]
    assert len(outcome.done) == 3


def test_an_archive_of_a_killed_run_is_found_behind_a_gap(tmp_path: Path) -> None:
    log, folder = tmp_path / "a.out", tmp_path / "archive"
    folder.mkdir()
    for number in range(3):
        log.write_text(f"{number}\n" * 9)
        set_age(log, 9 - number)
        content, facts = log.read_bytes(), log.stat()
        made, _ = compress_file(log, folder)
    log.write_bytes(content)  # as if the run had been killed before it removed the log
    os.utime(log, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    (folder / "a.out.gz").unlink()
    (folder / "a.out-2.gz").unlink()
    again, _ = compress_file(log, folder)
    assert again == made == folder / "a.out-3.gz"
    assert [path.name for path in folder.iterdir()] == ["a.out-3.gz"]
