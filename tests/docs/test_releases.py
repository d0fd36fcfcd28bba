"""Every command in docs/RELEASES.md is executed; every key of releases is in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from opslib.core.upkeep_sections import ReleaseSection
from opslib.ops.release.build import build_release
from tests.docs.commands import clean_environment, make_doors, run_script
from tests.ops.release.conftest import QUICK, make_experiment
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
    make_doors(folder)
    build_release(place.config, QUICK)
    return place


def execute(checkout: Place, command: str) -> subprocess.CompletedProcess[str]:
    return run_script(command, checkout.config_path.parent, clean_environment())


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
