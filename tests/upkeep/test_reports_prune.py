"""H-1: dated reports are kept a year; cited ones and the newest of each notebook for ever."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from opslib.core.files import hide_name
from opslib.upkeep import reports_prune
from tests.upkeep.places import NOW, Place, stamp_of


def write_run(
    place: Place, days: int, notebook: str, *, status: str = "finished", against: str | None = None
) -> Path:
    """A run's folder, as the runner leaves it."""
    date = NOW - timedelta(days=days)
    clock = f"{date:%H%M%S}-{notebook}-{days:06x}"
    folder = place.config.report_dir / f"{date:%Y-%m-%d}" / clock
    folder.mkdir(parents=True)
    change = {"against_path": against} if against else None
    (folder / "run.json").write_text(json.dumps({"status": status, "change": change}))
    (folder / f"{notebook}.html").write_bytes(b"page" * 100)
    return folder


def href(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}/page.html"


def test_reports_over_a_year_old_go_with_their_day(place: Place) -> None:
    old = write_run(place, 400, "01_bench")
    young = write_run(place, 360, "01_bench")
    record = place.run().record
    assert not old.parent.exists()
    assert young.exists()
    assert record.freed_by_duty_bytes["reports"] > 400


def test_the_newest_run_of_each_notebook_stays_and_so_does_the_newest_that_finished(
    place: Place,
) -> None:
    failed = write_run(place, 500, "02_ort_sweep", status="cell_raised")
    good = write_run(place, 600, "02_ort_sweep")
    older = write_run(place, 700, "02_ort_sweep")
    alone = write_run(place, 800, "03_quantize")
    place.run()
    assert [path.exists() for path in (failed, good, older, alone)] == [True, True, False, True]


def test_reports_of_the_scheduled_benchmark_go_too_and_its_newest_that_finished_stays(
    place: Place,
) -> None:
    """Plain papermill's, whose record stands beside the notebook."""
    found = []
    for days, status in ((500, "cell_raised"), (600, "finished"), (700, "finished")):
        folder = write_run(place, days, "01_bench", status=status)
        found.append(folder.rename(folder.with_name(f"{folder.name[:-7]}-papermill")))
        (found[-1] / "run.json").rename(found[-1] / "01_bench.run.json")
    place.run()
    assert [path.exists() for path in found] == [True, True, False]


def test_the_run_that_a_kept_one_compares_itself_with_stays(place: Place) -> None:
    first = write_run(place, 900, "01_bench")
    second = write_run(place, 700, "01_bench")
    newest = write_run(place, 500, "01_bench", against=href(first))
    place.run()
    assert [path.exists() for path in (first, second, newest)] == [True, False, True]


def test_a_cited_run_stays_in_both_places(place: Place) -> None:
    cited = write_run(place, 700, "01_bench")
    write_run(place, 500, "01_bench")
    run_id = f"{cited.parent.name.replace('-', '')}-{cited.name}"
    copy = place.config.report_dir / "cited" / run_id
    copy.mkdir(parents=True)
    place.run()
    assert cited.exists()
    assert copy.exists()


def test_nothing_that_is_no_run_of_the_runner_is_touched(place: Place, tmp_path: Path) -> None:
    root = place.config.report_dir
    write_run(place, 1, "01_bench")
    outside = write_run(place, 900, "01_bench").rename(tmp_path / "moved")
    day = root / "2020-01-01"
    (day / "notes").mkdir(parents=True)
    (day / ".000000-01_bench-abcdef.deleted").mkdir()
    (day / "by_hand.ipynb").write_text("{}")
    (day / "000000-01_bench-abcdef").symlink_to(outside)
    (outside / ".000000-01_bench-abcdef.pillops-0123456789abcdef.deleted").mkdir()
    (root / "2020-02-02").symlink_to(outside)
    (root / "2020-13-45" / "000000-01_bench-abcdef").mkdir(parents=True)
    before = {str(path) for path in root.rglob("*")} | {str(path) for path in outside.rglob("*")}
    place.run()
    assert {str(path) for path in root.rglob("*")} | {
        str(path) for path in outside.rglob("*")
    } == before


def test_a_report_that_became_the_newest_after_the_plan_is_skipped(place: Place) -> None:
    old, new = write_run(place, 500, "01_bench"), write_run(place, 1, "01_bench")
    planned = place.plan()
    for path in new.iterdir():
        path.unlink()
    new.rmdir()
    outcome = planned.plan.execute()
    assert "the newest run of its notebook" in outcome.skipped[0].reason
    assert old.exists()


def test_a_report_that_a_document_cites_after_the_plan_is_skipped(place: Place) -> None:
    write_run(place, 1, "01_bench")
    old, other = write_run(place, 500, "01_bench"), write_run(place, 600, "01_bench")
    planned = place.plan()
    run_id = f"{old.parent.name.replace('-', '')}-{old.name}"
    (place.config.report_dir / "cited" / run_id).mkdir(parents=True)
    outcome = planned.plan.execute()
    assert "a document cites it" in outcome.skipped[0].reason
    assert [old.exists(), other.exists()] == [True, False]


@pytest.mark.parametrize("way", ["new day", "same day", "unfinished one"])
def test_a_run_that_compares_itself_with_an_old_one_after_the_plan_keeps_it(
    place: Place, way: str
) -> None:
    """Runs begin and end while the night's work goes on."""
    write_run(place, 0 if way != "new day" else 30, "01_bench")
    old, other = write_run(place, 500, "01_bench"), write_run(place, 600, "01_bench")
    if way == "unfinished one":
        newest = write_run(place, 0, "02_sweep", status="running")
        write_run(place, 0, "03_other", status="running")
    planned = place.plan()
    if way == "unfinished one":
        content = {"status": "finished", "change": {"against_path": href(old)}}
        (newest / "run.json").write_text(json.dumps(content))
    else:
        today = place.config.report_dir / f"{NOW:%Y-%m-%d}" / f"{NOW:%H%M%S}-01_bench-abcdef"
        today.mkdir(parents=True)
        content = {"status": "finished", "change": {"against_path": href(old)}}
        (today / "run.json").write_text(json.dumps(content))
    outcome = planned.plan.execute()
    assert "compares itself with it" in outcome.skipped[0].reason
    assert [old.exists(), other.exists()] == [True, False]


def test_a_deletion_costs_the_same_however_many_reports_there_are(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(place, 1, "01_bench")
    for number in range(60):
        write_run(place, 400 + number, "01_bench")
    planned = place.plan()
    looks: list[Path] = []
    listed = reports_prune.list_reports
    monkeypatch.setattr(
        reports_prune, "list_reports", lambda root: looks.append(root) or listed(root)
    )
    assert len(planned.plan.execute().done) == 60
    assert looks == [], "what was seen for the plan still holds"


def test_a_deletion_that_was_killed_is_finished_by_the_next_run(place: Place) -> None:
    write_run(place, 1, "01_bench")
    old = write_run(place, 500, "01_bench")
    old.rename(hide_name(old, "deleted"))
    place.run()
    assert not old.parent.exists()


def test_our_own_daily_records_go_after_a_year_and_benchmarks_do_not(place: Place) -> None:
    daily = ("maintenance_20250101-020000.json", "checklist_daily_20250101-020000.json")
    for name in (*daily, "disk_20250101.txt", "bench_1.json"):
        place.write(f"reports/{name}", days=366)
    place.write("reports/disk_20261101.txt", days=24)
    place.run()
    left = {path.name for path in (place.exp / "reports").iterdir()}
    assert left == {
        "bench_1.json",
        "disk_20261101.txt",
        f"disk_{NOW:%Y%m%d}.txt",
        "disk_history.jsonl",
        f"maintenance_{stamp_of(0)}.json",
    }
