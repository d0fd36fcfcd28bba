"""The PowerShell files, and what can be read of them without an engine."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.ps1"))
PESTER = sorted((ROOT / "tests").glob("p*/*.ps1"))


def read_parameters(path: Path) -> dict[str, str]:
    """A script's own parameters and their defaults, as they are written."""
    block = re.search(r"^param\(\n(.*?)^\)$", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert block is not None
    found = re.findall(r"\](?:\$)(\w+)(?: = ([^\n]*?))?,?$", block[1], flags=re.MULTILINE)
    return dict(found)


def read_code(text: str) -> str:
    """A script without its comments and without what stands in quotes."""
    hidden = r"<#.*?#>|'(?:[^']|'')*'|\"(?:[^\"`]|`.|\"\")*\"|#[^\n]*"
    return re.sub(
        hidden, lambda m: "" if m[0].startswith(("#", "<#")) else "''", text, flags=re.DOTALL
    )
