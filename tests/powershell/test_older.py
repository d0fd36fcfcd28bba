"""H-1, H-4: what an engine of 7.6 cannot tell: whether Windows PowerShell 5.1 reads a script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.powershell.scripts import PESTER, SCRIPTS, read_code

# Syntax, cmdlets, variables and .NET members that came after 5.1 and .NET Framework.
NEWER = (
    r"&&|\|\||\?\?|\?\.|\?\[",  # chains, null tests
    r"\$\([^)]*\?[^)]*:|\) \? ",  # the ternary operator
    r"-SkipHttpErrorCheck|-AsHashtable|-Parallel\b|-NoProxy\b|-AsUTC\b",
    r"\b(?:Get-Error|Join-String|Test-Json|Remove-Service|Get-Uptime)\b",
    r"\$Is(?:Windows|Linux|MacOS)\b|\$PSStyle\b|\$PSNativeCommand\w+",
    r"\.ArgumentList\b|\.Kill\(\$true\)|SHA256\]::HashData|Convert\]::ToHexString",
    r"File\]::Move\([^)]*, \$true\)|Path\]::GetRelativePath|UnixEpoch",
    r"\bclean \{",
)
SPOILINGS = (
    "$a ?? $b",
    "Get-Item x && Get-Item y",
    "$x = ($a) ? 1 : 2",
    "ConvertFrom-Json -AsHashtable",
    "if ($IsLinux) { }",
    "$info.ArgumentList.Add($x)",
    "[System.IO.File]::Move($a, $b, $true)",
    "Get-Error",
)


def find_newer(text: str) -> list[str]:
    code = read_code(text)
    return [m[0] for pattern in NEWER for m in re.finditer(pattern, code)]


@pytest.mark.parametrize("path", [*SCRIPTS, *PESTER], ids=lambda path: path.name)
def test_nothing_is_used_that_windows_powershell_lacks(path: Path) -> None:
    assert find_newer(path.read_text()) == []


@pytest.mark.parametrize("line", SPOILINGS)
def test_what_it_lacks_is_noticed(line: str) -> None:
    assert find_newer(SCRIPTS[0].read_text() + f"\n{line}\n") != []


@pytest.mark.parametrize("path", [*SCRIPTS, *PESTER], ids=lambda path: path.name)
def test_a_file_is_ascii_and_ends_its_lines_as_windows_does(path: Path) -> None:
    raw = path.read_bytes()
    assert raw.isascii()
    assert raw.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)
