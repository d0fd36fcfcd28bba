"""The report about all trends: its verdict, its words, its command."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from opslib.core.errors import ParameterError
from opslib.core.formatting import utc_now
from opslib.ops.trends.run import run_trends
from opslib.ops.trends.story import describe_steps, draw_steps, step_frame, trend_frame
from opslib.runs.run_record import RUN_FILE, RunRecord, utc_text
from opslib.telling.themes import THEMES
from tests.running import run_python
from tests.runs.test_trends import noisy, write_series

LATE = noisy(10, 20) + noisy(10.35, 4, seed=500)  # told by the fourth run after the step


def date_runs(folders: list[Path], *, days_apart: float = 1, last_days_ago: float = 0) -> None:
    """Date runs so many days apart, the last one today or so many days ago."""
    for back, folder in enumerate(reversed(folders)):
        moment = utc_now() - timedelta(days=last_days_ago + back * days_apart, minutes=5)
        run = RunRecord.read(folder / RUN_FILE).model_copy(update={"started": utc_text(moment)})
        (folder / RUN_FILE).write_text(run.to_json())


def test_a_recent_step_for_the_worse_fails(tmp_path: Path) -> None:
    date_runs(write_series(tmp_path, noisy(10, 20) + noisy(12, 5, seed=1)))
    record = run_trends(tmp_path)
    assert (record.verdict, record.exit_code) == ("fail", 3)
    assert "Median (01_bench, A Processor, 2 cores) changed by +" in record.finding


def test_a_step_of_monthly_runs_counts_once_it_can_be_told(tmp_path: Path) -> None:
    folders = write_series(tmp_path, noisy(10, 12) + noisy(12, 3, seed=1))
    date_runs(folders, days_apart=30)
    assert run_trends(tmp_path).verdict == "fail"


def test_an_old_step_is_shown_and_decides_nothing(tmp_path: Path) -> None:
    date_runs(write_series(tmp_path, noisy(10, 20) + noisy(12, 20, seed=1)))
    record = run_trends(tmp_path)
    assert record.verdict == "pass"
    assert len(record.rows[0].steps) == 1
    assert run_trends(tmp_path, days=30).verdict == "fail"


def test_where_nothing_was_measured_of_late_nothing_is_said_to_be_well(tmp_path: Path) -> None:
    date_runs(write_series(tmp_path, noisy(10, 12)), last_days_ago=21)
    record = run_trends(tmp_path)
    day = record.rows[0].days[-1]
    assert (record.verdict, record.exit_code) == ("inconclusive", 4)
    assert record.finding == (
        f"No run in the last 7 days of 1 figure with 6 runs or more: the newest is of {day}."
    )
    assert run_trends(tmp_path, days=30).verdict == "pass"


def test_figures_that_were_not_measured_of_late_are_no_part_of_a_pass(tmp_path: Path) -> None:
    date_runs(write_series(tmp_path, noisy(10, 12)))
    other = write_series(tmp_path, noisy(10, 12), start=20, parameters={"batch": "8"})
    date_runs(other, last_days_ago=21)
    record = run_trends(tmp_path)
    assert record.verdict == "pass"
    assert "of 1 figure with 6 runs or more; 1 more was not measured." in record.finding


def test_a_step_alarms_when_it_is_found_however_late_that_is(tmp_path: Path) -> None:
    folders = write_series(tmp_path, LATE[:-1])
    date_runs(folders, days_apart=7)
    assert not run_trends(tmp_path).rows[0].steps
    date_runs([*folders, *write_series(tmp_path, LATE[-1:], start=50)], days_apart=7)
    record = run_trends(tmp_path)
    assert [step.at for step in record.rows[0].steps] == [20]
    assert record.verdict == "fail"


def test_a_step_for_the_better_passes_and_is_told(tmp_path: Path) -> None:
    date_runs(write_series(tmp_path, noisy(10, 20) + noisy(8, 5, seed=1)))
    record = run_trends(tmp_path)
    assert record.verdict == "pass"
    assert "1 step for the better" in record.finding


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_runs_are_inconclusive(tmp_path: Path, count: int) -> None:
    write_series(tmp_path, noisy(10, count))
    record = run_trends(tmp_path)
    assert record.verdict == "inconclusive"
    assert "6 runs" in record.finding
    assert draw_steps(record, THEMES[0]) is None


def test_tables_and_figure_say_the_step(tmp_path: Path) -> None:
    date_runs(write_series(tmp_path, noisy(10, 20) + noisy(12, 5, seed=1)))
    record = run_trends(tmp_path)
    assert list(step_frame(record)["is"]) == ["worse"]
    assert list(trend_frame(record)["runs"]) == [25]
    assert "Median (01_bench, A Processor, 2 cores): +" in describe_steps(record)
    assert draw_steps(record, THEMES[0]) is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"days": 0.0}, "days: got 0; expected above 0 to 3650"),
        ({"notebook": "99_none"}, "notebook: no run of '99_none'; there are runs of 01_bench"),
    ],
)
def test_bad_requests_are_named(tmp_path: Path, given: dict[str, object], said: str) -> None:
    write_series(tmp_path, [1.0])
    with pytest.raises(ParameterError, match=said):
        run_trends(tmp_path, **given)  # type: ignore[arg-type]


def test_the_command_ends_with_the_verdict(tmp_path: Path) -> None:
    date_runs(write_series(tmp_path, noisy(10, 20) + noisy(12, 5, seed=1)))
    answer = run_python(
        [sys.executable, "-m", "opslib.cli", "report", "trends", "--root", tmp_path]
    )
    assert answer.returncode == 3
    assert "last step" in answer.stdout
    assert "fail: Median" in answer.stdout
