"""`pillops release prove`: what it prints and what it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.ops.release.store import StoredRelease
from tests.ops.release.restoring import flip_byte, make_releasable, release
from tests.running import run_python
from tests.serving.conftest import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_releasable(tmp_path)


@pytest.fixture
def stored(place: Place, monkeypatch: pytest.MonkeyPatch) -> StoredRelease:
    return release(place.config, monkeypatch)


def call(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    door = [sys.executable, "-m", "opslib.cli", "release"]
    return run_python([*door, *arguments, "--config", str(place.config_path)], timeout=120)


def test_a_sound_release_is_shown_step_by_step_and_kept(
    place: Place, stored: StoredRelease, tmp_path: Path
) -> None:
    answer = call(place, "prove", stored.name, "--json", str(tmp_path / "rota.json"))
    assert answer.returncode == 0, answer.stderr
    for step in ("verify", "restore", "start with MODEL_PATH", "switch by /reload"):
        assert step in answer.stdout
    assert f"pass: {stored.name} restores" in answer.stdout
    record = json.loads((tmp_path / "rota.json").read_text())
    assert record["tests"][0]["proof"]["ok"] is True
    listed = call(place, "list")
    assert record["tests"][0]["proof"]["proved_at_utc"][:10] in listed.stdout


def test_a_broken_release_ends_with_3_and_its_name(place: Place, stored: StoredRelease) -> None:
    flip_byte(stored.path)
    answer = call(place, "prove")
    assert answer.returncode == 3
    assert f"fail: {stored.name} does not restore" in answer.stdout
    assert "not proved as of now: 1 of 1 release" in answer.stdout
    assert "FAILED" in call(place, "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["release-x"], "no such release"),
        (["--turns", "0"], "--turns"),
        (["--json", "."], "is a folder"),
        (["--fast"], "No such option"),
        ([], "pillops release create"),
    ],
)
def test_bad_input_is_one_line_and_2(place: Place, arguments: list[str], said: str) -> None:
    answer = call(place, "prove", *arguments)
    assert answer.returncode == 2
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert said in errors[0]
