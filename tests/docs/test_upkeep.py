"""Every command on upkeep is executed; every key, exit code and duty is in the document."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from opslib.core.upkeep_sections import MaintenanceSection
from opslib.ops.release.build import build_release
from tests.docs.commands import clean_environment, make_doors, read_parts, run_script
from tests.ops.release.conftest import QUICK, make_experiment
from tests.serving.conftest import Place
from tests.upkeep.places import Place as UpkeepPlace
from tests.upkeep.places import set_age

ROOT = Path(__file__).resolve().parents[2]
TEXT = read_parts("OPS_CHECKLIST.md", "Upkeep")
STARTERS = ("scripts/", "ls ", "cat ", "python benchmarks/")


def find_commands() -> list[str]:
    """The lines of `sh` blocks, and inline code that begins like a command."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    inline = [code for code in re.findall(r"`([^`\n]+)`", TEXT) if code.startswith(STARTERS)]
    lines = [line for block in blocks for line in block.splitlines()]
    return [one.replace(r"\|", "|") for one in dict.fromkeys([*inline, *lines])]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder laid out like a checkout, with a release and logs, cleaned once."""
    place = make_experiment(tmp_path_factory.mktemp("checkout"))
    folder = place.config_path.parent
    make_doors(folder)
    build_release(place.config, QUICK)
    upkeep = UpkeepPlace(place.config_path)
    set_age(upkeep.write("logs/train.out", b"a line\n" * 9), 8)
    upkeep.run()
    return place


@pytest.mark.parametrize("command", find_commands())
def test_a_command_of_the_document_works(checkout: Place, command: str) -> None:
    if command.startswith("python benchmarks/"):
        command = f"{sys.executable} {ROOT / command.split()[1]} --help"
    environment = clean_environment(EXP_DIR=str(checkout.config.exp_dir))
    answer = run_script(command, checkout.config_path.parent, environment)
    assert answer.returncode == 0, answer.stderr


def test_the_commands_are_all_found() -> None:
    found = "\n".join(find_commands())
    for word in ("maintenance.sh --dry-run", "KEEP_ONNX", "zcat", "release restore", "soak_upkeep"):
        assert word in found


@pytest.mark.parametrize("key", MaintenanceSection.model_fields)
def test_every_key_stands_in_the_document_and_in_the_configuration(key: str) -> None:
    assert f"`{key}`" in TEXT
    written = (ROOT / "config.yaml").read_text()
    section = written[written.index("\nmaintenance:") :].split("\n\n")[0]
    assert re.search(rf"^  {key}: .+#", section, re.MULTILINE)


def test_every_default_is_the_one_in_the_document() -> None:
    table = dict(re.findall(r"\| `(\w+)` \| (\d+) \|", TEXT))
    defaults = MaintenanceSection()
    assert len(table) == 10
    assert {name: int(getattr(defaults, name)) for name in table} == {
        name: int(value) for name, value in table.items()
    }


@pytest.mark.parametrize("code", [0, 2, 6, 9])
def test_every_exit_code_is_in_the_document(code: int) -> None:
    assert f"\n| {code} | " in TEXT
