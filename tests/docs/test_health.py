"""H-4, H-8, H-9: docs/HEALTH.md is executed; what it says of defaults and parameters is so."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.core.upkeep_sections import HealthSection, RotateSection
from tests.docs.commands import make_doors, run_script
from tests.models import write_config
from tests.powershell.scripts import SCRIPTS, read_parameters
from tests.upkeep.servers import World, open_world

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "HEALTH.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def table(head: str) -> dict[str, str]:
    """The rows of the table whose first column is headed `head`: name and default."""
    body = TEXT[TEXT.index(f"| {head} |") :].split("\n\n")[0]
    rows = re.findall(r"^\| `([^`]+)` \|([^|]*)\|", body, flags=re.MULTILINE)
    return {name: value.strip().strip("`") for name, value in rows if value.strip() != "default"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A folder laid out like a checkout, beside an app and a tunnel that answer."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "exp" / "logs").mkdir(parents=True)
    (folder / "exp" / "logs" / "cloudflared.log").write_text("a line\n")
    make_doors(folder)
    with open_world(folder) as opened:
        urls = f"  internal_url: {opened.url}/internal\n  external_url: {opened.url}/external\n"
        write_config(folder, f"health:\n{urls}")
        yield opened


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_document_works(world: World, command: str) -> None:
    answer = run_script(command, world.folder, os.environ | {"EXP_DIR": str(world.folder / "exp")})
    assert answer.returncode == 0, answer.stderr
    if "check" in command or "tail" in command:
        assert "external" in answer.stdout


def test_the_commands_are_all_found() -> None:
    assert len(COMMANDS) == 5


@pytest.mark.parametrize(
    ("head", "section"),
    [("`health:` in config.yaml", HealthSection()), ("`rotate:` in config.yaml", RotateSection())],
)
def test_every_key_is_listed_with_its_default(
    head: str, section: HealthSection | RotateSection
) -> None:
    shown = {
        name: "null" if v is None else f"{v:g}" if isinstance(v, float) else str(v)
        for name, v in section.model_dump().items()
    }
    assert table(head) == shown


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_parameter_is_listed_with_its_default(path: Path) -> None:
    listed = table(f"`{path.name}`")
    parameters = {f"-{name}": default.strip("'") for name, default in read_parameters(path).items()}
    if path.stem == "Register-Tasks":
        own = ("-Remove", "-InstallFolder", "-RotateAt", "-UserId")
        parameters = {name: parameters[name] for name in own}
    what_if = {"-WhatIf": ""} if "SupportsShouldProcess" in path.read_text() else {}
    assert listed == parameters | what_if


def test_the_document_says_what_was_executed_and_what_was_read() -> None:
    words = " ".join(TEXT.split())
    assert "by PowerShell 7.6 on Linux" in words
    assert "the workflow `.github/workflows/windows.yml` runs them on Windows" in words
    for topic in ("WSL2", "cf_restart.ps1", "-TunnelId", "HEALTH_WEBHOOK", "uptime.yml"):
        assert topic in TEXT
