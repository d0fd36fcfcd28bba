"""H-9: the Windows commands of the documents reach their programs as intended, however passed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.powershell.scripts import ROOT, SCRIPTS
from tests.powershell.test_pester import MISSING

PROGRAMS = ("icacls", "sc.exe", "powershell.exe", "cloudflared", "netsh")
FOLDER = r"C:\ProgramData\Cloudflare\cloudflared"
TUNNEL = (
    r"C:\ProgramData\chocolatey\lib\cloudflared\tools\cloudflared.exe --config "
    rf"{FOLDER}\config.yml tunnel run <TUNNEL_ID>"
)
# Those in which a quote or a blank decides; the words of the rest are what stands between blanks.
QUOTED = {
    "icacls": [
        *("icacls", FOLDER, "/inheritance:r", "/grant:r"),
        *(r"BUILTIN\Administrators:(OI)(CI)(F)", r"NT AUTHORITY\SYSTEM:(OI)(CI)(F)", "/T", "/C"),
    ],
    "sc.exe config Cloudflared binPath=": [
        *("sc.exe", "config", "Cloudflared", "binPath=", TUNNEL),
    ],
}


def find_lines() -> list[str]:
    """The lines that the documents and the scripts' own examples give for Windows."""
    texts = [path.read_text() for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))]
    blocks = [b for t in texts for b in re.findall(r"```(?:powershell|bat)\n(.*?)```", t, re.S)]
    helps = [path.read_text() for path in SCRIPTS]
    examples = [line for text in helps for line in re.findall(r"\.EXAMPLE\n +(.+)", text)]
    return [*(line for block in blocks for line in block.splitlines()), *examples]


def find_commands() -> list[str]:
    return sorted({line for line in find_lines() if line.startswith(PROGRAMS)})


def expect(command: str) -> list[str]:
    for start, words in QUOTED.items():
        if command.startswith(start + " "):
            return words
    parts = re.findall(r'(?:[^\s"]|"[^"]*")+', command)
    return [part.replace('"', "") for part in parts]


@pytest.mark.skipif(shutil.which("pwsh") is None, reason=MISSING)
@pytest.mark.parametrize("passing", ["Standard", "Windows", "Legacy"])
def test_a_command_reaches_its_program_as_intended(tmp_path: Path, passing: str) -> None:
    for name in PROGRAMS:
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@" .\n')
        program.chmod(0o755)
    commands = find_commands()
    assert len(commands) >= 8
    lines = [f"$PSNativeCommandArgumentPassing = '{passing}'", *commands]
    lines.insert(1, f"$env:PATH = '{tmp_path}:' + $env:PATH")
    script = tmp_path / "commands.ps1"
    script.write_text("\n".join(lines))
    run = ["pwsh", "-NoProfile", "-File", str(script)]
    answer = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    seen = [one.strip("\n").split("\n") for one in answer.stdout.split("\n.\n") if one]
    assert seen == [expect(one) for one in commands], json.dumps(seen)


def test_no_form_hangs_on_the_shell() -> None:
    for command in find_commands():
        assert "--%" not in command
        assert r"\"" not in command
        assert "'" not in command, "cmd knows no single quotes"


@pytest.mark.skipif(shutil.which("pwsh") is None, reason=MISSING)
@pytest.mark.parametrize("command", [one for one in find_commands() if " -File scripts" in one])
def test_a_form_with_file_shows_what_it_would_register(command: str) -> None:
    words = [word.replace("\\", "/") for word in expect(command)[1:]]
    if "-WhatIf" not in words:
        words.append("-WhatIf")
    answer = subprocess.run(
        ["pwsh", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert r"\PillSnap\HealthWatch" in answer.stdout
    if "-Webhook" in words:
        assert 'health_watch.ps1" -Webhook env:HEALTH_WEBHOOK"' in answer.stdout


INSTALLS = [line for line in find_lines() if "\\Register-Tasks.ps1 " in line and line[0] == "."]


@pytest.mark.skipif(shutil.which("pwsh") is None, reason=MISSING)
@pytest.mark.parametrize("command", sorted({one for one in INSTALLS if "-Remove" not in one}))
def test_an_installation_shows_what_it_would_register(command: str) -> None:
    typed = re.sub(r"^\.\\(?:scripts\\)?", "./scripts/", command)
    run = ["pwsh", "-NoProfile", "-Command", f"{typed.removesuffix(' -WhatIf')} -WhatIf"]
    answer = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    assert r"\PillSnap\HealthWatch" in answer.stdout
    for word in re.findall(r"-(?:RestartOn|Webhook|Keep) \S+", command):
        assert word in answer.stdout.replace('"', "")
