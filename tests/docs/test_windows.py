"""H-4, H-8, H-9: docs/WINDOWS.md, quoted as each shell needs; its parameters are the scripts'."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.commands import read_parts
from tests.powershell.scripts import SCRIPTS, read_parameters

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "WINDOWS.md").read_text()
COMMANDS = (ROOT / "docs" / "COMMANDS.md").read_text()
BIN_PATH = (
    r'config Cloudflared binPath= "C:\ProgramData\chocolatey\lib\cloudflared\tools'
    r"\cloudflared.exe --config C:\ProgramData\Cloudflare\cloudflared\config.yml "
    r'tunnel run <TUNNEL_ID>"'
)
ICACLS = (
    r'icacls "C:\ProgramData\Cloudflare\cloudflared" /inheritance:r /grant:r '
    r'"BUILTIN\Administrators:(OI)(CI)(F)" "NT AUTHORITY\SYSTEM:(OI)(CI)(F)" /T /C'
)
REST = ["sc.exe config Cloudflared start= auto", "sc.exe start Cloudflared"]


def blocks(part: str, language: str) -> list[list[str]]:
    found = re.findall(rf"```{language}\n(.*?)```", read_parts("WINDOWS.md", part), flags=re.DOTALL)
    return [block.splitlines() for block in found]


def table(head: str) -> dict[str, str]:
    """The rows of the generated table whose first column is headed `head`: name and default."""
    body = COMMANDS[COMMANDS.index(f"| {head} |") :].split("\n\n")[0]
    rows = re.findall(r"^\| `([^`]+)` \|([^|]*)\|", body, flags=re.MULTILINE)
    return {name: value.strip().strip("`") for name, value in rows if value.strip() != "default"}


def test_the_service_is_set_up_alike_in_each_shell() -> None:
    (block,) = blocks("Set up the service", "powershell")
    assert block == ["cloudflared service install", f"sc.exe {BIN_PATH}", *REST]
    (hardening,) = blocks("Harden it", "bat")
    assert hardening[0] == ICACLS
    assert all(line.startswith(("icacls", "sc.exe failure")) for line in hardening)
    assert not re.search(r"start=auto|reset=\d", TEXT), "sc.exe needs a blank after `=`"
    assert "--%" not in TEXT
    assert r"\"" not in TEXT


def test_the_files_are_named_with_their_folder() -> None:
    assert r"`C:\ProgramData\Cloudflare\cloudflared\`" in TEXT
    for name in ("config.yml", "<TUNNEL_ID>.json", "cloudflared.log"):
        assert f"| `{name}` |" in TEXT


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_parameter_is_listed_with_its_default(path: Path) -> None:
    listed = table(f"`{path.name}`")
    parameters = {f"-{name}": default.strip("'") for name, default in read_parameters(path).items()}
    if path.stem == "Register-Tasks":
        own = ("-Remove", "-InstallFolder", "-RotateAt", "-UserId")
        parameters = {name: parameters[name] for name in own}
    what_if = {"-WhatIf": ""} if "SupportsShouldProcess" in path.read_text() else {}
    assert listed == parameters | what_if
    assert "(COMMANDS.md#windows-scripts)" in TEXT


def test_it_says_what_was_executed_and_what_was_not() -> None:
    words = " ".join(TEXT.split())
    assert "on Windows itself they have not been executed" in words
    assert "as administrator" in words
    assert "by PowerShell 7.6 on Linux" in words
    assert "the workflow `.github/workflows/windows.yml` runs them on Windows" in words
    for topic in ("WSL2", "cf_restart.ps1", "-TunnelId", "HEALTH_WEBHOOK"):
        assert topic in TEXT


def test_it_has_no_command_for_a_shell_of_linux() -> None:
    assert "```sh" not in TEXT
