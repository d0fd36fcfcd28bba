"""Every command in docs/RELEASES.md is executed; every key of releases is in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.release_section import ReleaseSection
from opslib.release.build import build_release
from tests.release.conftest import QUICK, make_experiment
from tests.serving.conftest import Place

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "RELEASES.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder laid out like a checkout, with a release."""
    place = make_experiment(tmp_path_factory.mktemp("checkout"))
    folder = place.config_path.parent
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "backup_release.sh", folder / "scripts")
    for name, run in (("pillops", " -m opslib.cli.main"), ("python", "")):
        door = folder / ".venv" / "bin" / name
        door.write_text(f'#!/bin/sh\nexec {sys.executable}{run} "$@"\n')
        door.chmod(0o755)
    build_release(place.config, QUICK)
    return place


def execute(checkout: Place, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=checkout.config_path.parent,
        env={k: v for k, v in os.environ.items() if k != "API_KEY"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_document_works(checkout: Place, command: str) -> None:
    answer = execute(checkout, command)
    assert answer.returncode == 0, answer.stderr


def test_the_path_can_be_caught_by_a_script(checkout: Place) -> None:
    command = re.findall(r"`(archive=[^`]+)`", TEXT)[0]
    answer = execute(checkout, f'{command}; test -f "$archive"')
    assert answer.returncode == 0, answer.stderr


def test_every_key_is_in_the_document() -> None:
    for key in ReleaseSection.model_fields:
        assert f"release.{key}" in TEXT, key
