"""H-4: the workflows. What the probe runs on GitHub is run here, against real local servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.upkeep.servers import World, closed_port, open_world

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"


def read(name: str) -> dict[Any, Any]:
    content = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(content, dict)
    return content


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def probe(url: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("curl") is None:
        pytest.skip("needs curl, as GitHub's runners have")
    (step,) = read("uptime.yml")["jobs"]["probe"]["steps"]
    script = step["run"].replace("--max-time 10", "--max-time 1")
    return subprocess.run(
        ["bash", "-e", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | step["env"] | {"HEALTH_URL": url, "WAIT_S": "0"},
        timeout=60,
        check=False,
    )


def test_the_probe_passes_where_the_address_answers(world: World) -> None:
    answer = probe(f"{world.url}/external")
    assert answer.returncode == 0, answer.stderr
    assert "answers" in answer.stdout


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("500", "HTTP 500"),
        ("login", "no JSON whose status is ok"),
        ("starting", "no JSON whose status is ok"),
        ("redirect", "HTTP 302"),
        ("hang", "failed twice"),
        ("refuse", "failed twice"),
    ],
)
def test_the_probe_fails_after_asking_twice(world: World, mode: str, said: str) -> None:
    world.set(external=mode)
    answer = probe(f"{world.url}/external")
    assert answer.returncode == 1
    assert said in answer.stdout
    assert "::error::" in answer.stdout
    assert [name for name, _ in world.server.asked] == ["external", "external"]


def test_the_probe_fails_where_nobody_listens() -> None:
    assert probe(f"http://127.0.0.1:{closed_port()}/health").returncode == 1


def test_the_probe_runs_on_a_schedule_and_only_where_an_address_is_set() -> None:
    workflow = read("uptime.yml")
    # YAML 1.1 reads the key `on` as a truth.
    assert workflow[True]["schedule"][0]["cron"] == "*/10 * * * *"
    assert workflow["jobs"]["probe"]["if"] == "${{ vars.HEALTH_URL != '' }}"
    assert workflow["permissions"] == {}


def test_the_windows_workflow_tests_both_editions() -> None:
    workflow = read("windows.yml")
    job = workflow["jobs"]["scripts"]
    assert job["runs-on"] == "windows-latest"
    assert job["strategy"]["matrix"]["edition"] == ["powershell", "pwsh"]
    steps = "\n".join(step.get("run", "") for step in job["steps"])
    assert "tests/pester/run.ps1" in steps
    assert "Invoke-ScriptAnalyzer" in steps
    for path in re.findall(r"\btests/pester[\w./]*|\bscripts\b", steps):
        assert (ROOT / path).exists()


def test_every_step_of_a_windows_script_has_its_pester_file() -> None:
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.ps1")}
    names = [path.name for path in (ROOT / "tests/pester").glob("*.Tests.ps1")]
    tests = {name.removesuffix(".Tests.ps1") for name in names}
    assert tests == scripts | {"rules"}
