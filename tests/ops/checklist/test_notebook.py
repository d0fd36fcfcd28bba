"""H-9: the checklist as a dated report, by plain papermill and by our runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from opslib.runs.run_record import RunRecord
from opslib.telling.scraps import read_scraps
from tests.ops.checklist.conftest import Plant, closed_port
from tests.running import run_python
from tests.runs.browser import open_browser, open_page, serious_violations

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOK = ROOT / "notebooks" / "06_checklist.ipynb"


def run(plant: Plant, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    url = plant.service.url
    told = {
        "PILLSNAP_CONFIG": str(plant.place.config_path),
        "PILLSNAP_CLIENT__URL": url,
        "PILLSNAP_HEALTH__INTERNAL_URL": f"{url}/health",
        "PILLSNAP_HEALTH__EXTERNAL_URL": f"{url}/health",
    }
    return run_python(
        [sys.executable, "-m", *command], timeout=180, env={**os.environ, **told, **variables}
    )


def test_a_healthy_month_is_a_report_that_passes(plant: Plant, tmp_path: Path) -> None:
    target = tmp_path / "out.ipynb"
    command = ["papermill", "--no-progress-bar", str(NOTEBOOK), str(target)]
    answer = run(plant, *command, "-p", "period", "monthly")
    assert answer.returncode == 0, answer.stderr
    scraps = read_scraps(target)
    assert scraps["verdict"].value == "pass"
    assert scraps["failed_items"].value == 0
    assert scraps["ok_items"].value == 15
    record = json.loads(Path(scraps["record"].value).read_text())
    assert record["schema"] == "checklist/1"
    assert plant.service.key not in target.read_text()


@pytest.fixture(scope="module")
def report(plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report by our runner, made while the tunnel was down."""
    folder = tmp_path_factory.mktemp("runs") / "report"
    dead = f"http://127.0.0.1:{closed_port()}/health"
    command = ["opslib.cli", "run", str(NOTEBOOK), "--out", str(folder)]
    answer = run(plant, *command, PILLSNAP_HEALTH__EXTERNAL_URL=dead)
    assert answer.returncode == 3, answer.stderr
    return folder


def test_a_fault_is_a_report_that_fails_with_its_code(report: Path) -> None:
    kept = RunRecord.read(report / "run.json")
    assert kept.verdict == "fail"
    assert kept.finding is not None
    assert kept.finding.startswith("Daily: Health, outside failed;")
    page = (report / "06_checklist.html").read_text()
    assert 'class="pillops-items"' in page
    assert "it is the tunnel" in page
    assert kept.record is not None
    assert kept.record.startswith("checklist_daily_")


@pytest.mark.chromium
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_page_fits_and_is_accessible(
    report: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = report / "06_checklist.html"
    with open_browser() as browser, open_page(browser, width=width, scheme=scheme) as watched:
        watched.page.goto(page.as_uri())
        assert watched.console == []
        assert watched.requests[0] == page.as_uri()
        assert all(url.startswith("data:") for url in watched.requests[1:])
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious_violations(watched.page) == []
