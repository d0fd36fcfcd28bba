"""H-9: `pillops check` in the terminal, and the story of the notebook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opslib.ops.checklist.figures import describe_disks, describe_lately, draw_disks, draw_lately
from opslib.ops.checklist.record import ChecklistRecord
from opslib.ops.checklist.run import run_checklist
from opslib.ops.checklist.story import (
    disks_frame,
    errors_frame,
    items_html,
    items_text,
    speeds_frame,
)
from opslib.runs.sanitize import clean_html
from opslib.telling.figures import figure_html
from tests.ops.checklist.conftest import Plant, closed_port, json_line
from tests.running import run_python
from tests.waiting import await_that


def check(plant: Plant, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    url = plant.service.url
    told = {
        "PILLSNAP_CLIENT__URL": url,
        "PILLSNAP_HEALTH__INTERNAL_URL": f"{url}/health",
        "PILLSNAP_HEALTH__EXTERNAL_URL": f"{url}/health",
        "COLUMNS": "120",
    }
    command = [sys.executable, "-m", "opslib.cli", "check", *arguments]
    return run_python(
        [*command, "--config", str(plant.place.config_path)],
        timeout=120,
        env={**os.environ, **told, **variables},
    )


def test_all_well_ends_with_0_and_keeps_its_record(plant: Plant, tmp_path: Path) -> None:
    answer = check(plant, "weekly", "--json", str(tmp_path / "record.json"))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.rstrip().endswith("ok: Weekly: all is well, 10 items are ok.")
    assert f"record: {tmp_path / 'record.json'}" in answer.stderr
    assert ChecklistRecord.read(tmp_path / "record.json").period == "weekly"
    assert plant.service.key not in answer.stdout + answer.stderr


def test_a_failure_stands_first_with_its_next_step_and_ends_with_3(plant: Plant) -> None:
    dead = f"http://127.0.0.1:{closed_port()}/health"
    answer = check(plant, "daily", PILLSNAP_HEALTH__EXTERNAL_URL=dead)
    assert answer.returncode == 3
    lines = answer.stdout.splitlines()
    assert re.match(r"failed +Health, outside", lines[1])
    assert "next: restart the tunnel" in answer.stdout
    assert lines[-1].startswith("failed: Daily: Health, outside failed; 5 items are ok.")


def test_what_stays_says_since_when(plant: Plant) -> None:
    check(plant, "daily", PILLSNAP_HEALTH__EXTERNAL_URL="")
    second = int(time.time())  # records of one second are not told apart by their time
    await_that(lambda: int(time.time()) > second, "the next second")
    answer = check(plant, "daily", PILLSNAP_HEALTH__EXTERNAL_URL="")
    assert re.search(r"like this since 20\d\d-\d\d-\d\d \d\d:\d\d UTC", answer.stdout)
    assert answer.stdout.count("like this since") == 1


def test_a_lost_experiment_fails_and_nothing_is_made_in_its_place(
    plant: Plant, tmp_path: Path
) -> None:
    gone = tmp_path / "not-mounted" / "exp"
    answer = check(plant, "daily", PILLSNAP_EXP_DIR=str(gone))
    assert answer.returncode == 3
    assert re.search(r"^failed +Disks", answer.stdout, re.MULTILINE)
    assert f"error: {gone}: no such folder, so the record is not kept" in answer.stderr
    assert not gone.parent.exists()


def test_an_address_that_leads_nowhere_is_unknown_and_does_not_end_the_list(plant: Plant) -> None:
    record = run_checklist(plant.config(client__url="http://no-such-host.invalid:1"), "monthly")
    uploads = record.item("uploads")
    assert uploads is not None
    assert uploads.state == "unknown"


def test_attention_ends_with_4(plant: Plant) -> None:
    answer = check(plant, "daily", PILLSNAP_HEALTH__EXTERNAL_URL="")
    assert answer.returncode == 4
    assert answer.stdout.splitlines()[-1].startswith("attention: Daily: Health, outside wants")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("yearly",), "period: got 'yearly', expected one of daily, weekly, monthly"),
        (("daily", "--hours", "0"), "hours: got 0.0, expected more than 0"),
        (("daily", "--json", "/"), "--json /: is a folder"),
    ],
)
def test_wrong_use_ends_with_2_and_one_line(
    plant: Plant, arguments: tuple[str, ...], said: str
) -> None:
    answer = check(plant, *arguments)
    assert answer.returncode == 2
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


def test_a_full_disk_does_not_swallow_the_answer(plant: Plant) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    answer = check(plant, "daily", "--json", "/dev/null/record.json")
    assert answer.returncode == 2
    kept = plant.config().records_dir
    mode = kept.stat().st_mode
    kept.rename(kept.with_name("reports.aside"))
    kept.write_text("a file where the folder should be")
    try:
        answer = check(plant, "daily")
    finally:
        kept.unlink()
        kept.with_name("reports.aside").rename(kept)
    assert kept.stat().st_mode == mode
    assert "Health, inside" in answer.stdout
    assert "error: cannot " in answer.stderr


@pytest.fixture(scope="module")
def troubled(plant: Plant) -> ChecklistRecord:
    """A run that found errors with markup in them."""
    log = plant.config().logs_dir / "api.err"
    kept = log.read_bytes()
    with log.open("a") as file:
        file.write(json_line("lost <script>alert(1)</script> & more"))
    try:
        return run_checklist(plant.config(health__external_url=""), "monthly")
    finally:
        log.write_bytes(kept)


def test_the_list_shows_every_item_the_worst_first_and_no_markup_of_a_log(
    troubled: ChecklistRecord,
) -> None:
    html = items_html(troubled)
    titles = re.findall(r"<strong>([^<]+)</strong><br>", html)
    assert titles[:2] == ["Health, outside", "API log"]
    assert len(titles) == len(troubled.items)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    cleaned = clean_html(html)
    assert cleaned.count('class="badge inconclusive"') == 2
    assert "&lt;ul" not in cleaned
    assert "next: " in items_text(troubled)


def test_the_tables_tell_what_the_record_holds(troubled: ChecklistRecord) -> None:
    errors = errors_frame(troubled)
    assert list(errors["count"]) == [1]
    assert errors["log"][0] == "API"
    disks = disks_frame(troubled)
    assert disks["mount"][0] == "/"
    speeds = speeds_frame(troubled)
    assert list(speeds["outcome"]) == ["no measurable change"] * 2


def test_the_figures_are_drawn_in_both_themes_and_described(troubled: ChecklistRecord) -> None:
    disks = [disk for item in troubled.items for disk in item.disks]
    runs = [troubled, troubled]
    assert "/: " in describe_disks(disks)
    assert "API log attention" in describe_lately(runs)
    for html in (
        figure_html(lambda theme: draw_disks(disks, theme), alt=describe_disks(disks)),
        figure_html(lambda theme: draw_lately(runs, theme), alt=describe_lately(runs)),
    ):
        assert html.count("data:image/") == 2
