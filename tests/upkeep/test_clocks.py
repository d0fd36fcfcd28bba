"""H-1: a wrong clock deletes nothing: not what it dated, and not what only looks old by it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from opslib.core.errors import SkippedError
from opslib.upkeep.clock_gap import CLOCK, find_doubt
from opslib.upkeep.job_status import read_status
from opslib.upkeep.maintain_command import maintain
from opslib.upkeep.maintenance import plan_maintenance, run_maintenance
from opslib.upkeep.maintenance_record import MaintenanceRecord
from tests.upkeep.places import NOW, Place, set_age, stamp_of, tiny_model

LATER = NOW + timedelta(days=5_000)


def fill(place: Place) -> None:
    """Write one of everything that has an age, none of it old enough to go."""
    for number in range(7):
        place.write_model(f"model-{stamp_of(number + 1)}-abc1234.onnx", days=number + 1)
    place.write("checkpoints/best.pt", days=3)
    place.write("checkpoints/last_1.pt", days=3)
    place.write("checkpoints/last_2.pt", days=2)
    place.write("logs/archive/api.out.gz", days=5)
    place.write("logs/train.out", days=1)
    place.write("reports/disk_20261101.txt", days=5)
    place.write("export/.x.json.ab1_cd2e", days=0.5)
    place.write("quantized/model-gone/model.int8.onnx", tiny_model(), days=3)
    day = (NOW - timedelta(days=5)).strftime("%Y-%m-%d")
    for clock in ("101010", "111111"):
        run = place.config.report_dir / day / f"{clock}-01_bench-abcdef" / "run.json"
        run.parent.mkdir(parents=True)
        run.write_text(json.dumps({"status": "finished"}))


def deleted(place: Place, now: datetime) -> set[str]:
    """What a round at `now` would delete."""
    steps = plan_maintenance(place.config, now=now).plan.actions
    return {step.target for step in steps if step.verb == "delete"}


def test_a_clock_that_jumped_ahead_deletes_nothing_until_a_person_says_it_is_right(
    place: Place,
) -> None:
    fill(place)
    place.run()
    before = set(place.files())
    for night in range(3):  # the nights after the jump: by then much is dated by the wrong clock
        now = LATER + timedelta(days=night)
        place.write("logs/api.out", days=-5_000 - night)
        place.write(f"reports/checklist_daily_2040010{night}-080000.json", days=-5_000 - night)
        record = place.run(now).record
        (skipped,) = (one for one in record.skipped if one.duty == CLOCK)
        assert "5,000 days, over 30: nothing is deleted; if the clock is right" in skipped.reason
        assert "pillops maintain --clock-is-right" in skipped.reason
        assert before <= set(place.files())
    run_maintenance(place.config, show=lambda _: None, now=LATER, clock_is_right=True)
    assert "logs/archive/api.out.gz" not in place.files()
    assert find_doubt(place.config, LATER + timedelta(days=1)) is None


def test_set_right_again_the_clock_is_believed_without_a_word(place: Place) -> None:
    fill(place)
    place.run()
    place.run(LATER)
    assert find_doubt(place.config, NOW + timedelta(days=1)) is None


def test_before_the_first_round_the_newest_thing_tells_and_a_stop_lasts(place: Place) -> None:
    fill(place)
    set_age(place.config_path, 3)
    assert find_doubt(place.config, NOW) is None
    assert "over 30" in (find_doubt(place.config, LATER) or "")
    place.run(LATER)
    place.write("reports/index_job.json", days=-5_000)  # something is dated by the wrong clock now
    assert "in doubt since the round of" in (find_doubt(place.config, LATER) or "")
    assert find_doubt(place.config, NOW) is None


def test_a_host_that_was_off_stops_once_and_rounds_that_are_rare_do_not(place: Place) -> None:
    fill(place)
    place.run(NOW)
    after = NOW + timedelta(days=61)
    assert "61 days, over 30" in (find_doubt(place.config, after) or "")
    for week in range(1, 9):  # nobody cleans, but a release is made each week
        place.write(f"releases/release-{week}.tar.gz", days=-7 * week)
    assert find_doubt(place.config, after) is None


def test_logs_are_still_cut_by_their_size_while_the_clock_is_in_doubt(tmp_path: Path) -> None:
    from tests.upkeep.places import make_place

    place = make_place(tmp_path, "rotate_mb: 0.01")
    place.run()
    place.write("logs/api.out", b"line\n" * 10_000)
    record = place.run(LATER).record
    assert [item.duty for item in record.done] == ["logs"]
    assert any(name.startswith("logs/archive/api.out.") for name in place.files())


@pytest.mark.parametrize("days", [365, 20_000], ids=["a year", "1970"])
def test_a_clock_that_is_behind_deletes_nothing_that_lies_after_it(
    place: Place, days: float
) -> None:
    fill(place)
    place.run()
    assert deleted(place, NOW - timedelta(days=days)) == set()


def test_what_a_clock_ahead_dated_is_neither_newest_nor_counted(place: Place) -> None:
    real = [
        place.write_model(f"model-{stamp_of(n)}-abc1234.onnx", days=n).name for n in range(1, 8)
    ]
    for n in (1500, 1501):
        place.write_model(f"model-{stamp_of(-n)}-abc1234.onnx", days=-n)
    copied = place.write_model(
        f"model-{stamp_of(-1502)}-abc1234.onnx", days=0.5
    )  # dated by its name
    old = place.write("checkpoints/last_1.pt", days=20)
    place.write("checkpoints/last_2.pt", days=-1500)
    oldest = "2020-01-01/101010-01_bench-abcdef"
    for day in (oldest, "2090-01-01/101010-01_bench-abcdef"):
        run = place.config.report_dir / day / "run.json"
        run.parent.mkdir(parents=True)
        run.write_text(json.dumps({"status": "finished"}))
    planned = place.plan()
    gone = {step.target for step in planned.plan.actions}
    assert gone == {f"export/{name}" for name in real[5:]}
    assert old.exists()
    (note,) = (one for one in planned.notes if "export/" in one and "dated after now" in one)
    assert "and 2 more; is the clock right?" in note
    assert any("checkpoints/last_2.pt" in one for one in planned.notes)
    place.execute()
    assert copied.exists()
    assert (place.config.report_dir / oldest).is_dir()


def test_the_newest_by_its_name_is_not_one_from_the_future(tmp_path: Path) -> None:
    from tests.upkeep.places import make_place

    place = make_place(tmp_path, "keep_onnx: 1")
    copied = place.write_model(
        f"model-{stamp_of(2)}-abc1234.onnx", days=9
    )  # the newest by its name
    place.write_model(f"model-{stamp_of(5)}-abc1234.onnx", days=1)
    place.write_model(f"model-{stamp_of(-900)}-abc1234.onnx", days=8)
    assert f"export/{copied.name}" not in place.targets()


def test_the_command_says_what_is_in_doubt_and_how_to_go_on(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    set_age(place.config_path, 400)
    place.write("logs/archive/api.out.gz", days=400)
    with pytest.raises(SkippedError, match="1 item skipped"):
        maintain(config=place.config_path)
    said = capsys.readouterr().out
    assert "skipped clock: nothing is dated between" in said
    assert "`pillops maintain --clock-is-right`" in " ".join(said.split())
    assert (place.exp / "logs/archive/api.out.gz").exists()
    status = read_status(place.config, "maintenance")
    assert status is not None
    assert status.exit_code == 9
    assert maintain(config=place.config_path, clock_is_right=True) == 0
    assert not (place.exp / "logs/archive/api.out.gz").exists()


def test_the_script_hands_the_persons_word_on(place: Place) -> None:
    root = Path(__file__).resolve().parents[2]
    set_age(place.config_path, 400)
    place.write("logs/archive/api.out.gz", days=400)
    given = ["--clock-is-right", "--config", str(place.config_path)]
    command = [sys.executable, "-m", "opslib.upkeep.maintain_command", *given]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    assert not (place.exp / "logs/archive/api.out.gz").exists()


def test_the_record_of_an_earlier_build_counts_as_a_round(place: Place) -> None:
    record = place.run().record
    assert isinstance(record, MaintenanceRecord)
    (path,) = place.config.records_dir.glob("maintenance_*.json")
    content = json.loads(path.read_text())
    del content["limits"]["clock_gap_days"]
    path.write_text(json.dumps(content))
    set_age(place.config_path, 400)
    assert find_doubt(place.config, NOW + timedelta(days=29)) is None
    assert find_doubt(place.config, NOW + timedelta(days=32)) is not None
