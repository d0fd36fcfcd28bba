"""H-4: every command on health and rotation is executed; every key has its default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.core.upkeep_sections import HealthSection, RotateSection
from tests.docs.commands import make_doors, read_parts, run_script
from tests.models import write_config
from tests.upkeep.servers import World, open_world

ROOT = Path(__file__).resolve().parents[2]
TEXT = read_parts("OPS_CHECKLIST.md", "Health")
KEYS = (ROOT / "docs" / "CONFIGURATION.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def read_defaults(section: str) -> dict[str, str]:
    """The keys of a section of the configuration and their defaults, as its table has them."""
    body = KEYS.partition(f"### `{section}`\n")[2].partition("\n### ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^|]+)` \| \S", body, flags=re.MULTILINE))


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
    ("name", "section"), [("health", HealthSection()), ("rotate", RotateSection())]
)
def test_every_key_is_listed_with_its_default(
    name: str, section: HealthSection | RotateSection
) -> None:
    shown = {
        key: "null" if v is None else f"{v:g}" if isinstance(v, float) else str(v)
        for key, v in section.model_dump().items()
    }
    assert read_defaults(name) == shown
    assert f"(CONFIGURATION.md#{name})" in TEXT


def test_what_stops_with_the_machine_is_asked_from_outside() -> None:
    for topic in ("uptime.yml", "HEALTH_WEBHOOK"):
        assert topic in TEXT
