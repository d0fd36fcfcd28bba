"""Write docs/COMMANDS.md: every command and option, as `pillops` and the scripts themselves say."""

import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from opslib.cli import app

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "COMMANDS.md"
NOTE = """# Commands

For whoever looks up an option.
Written by `make reference` from the program's own help; a test fails when it has drifted. Exit
codes are the same for every command: see [README.md](../README.md).

Options of the serving repository's scripts are taken where they mean the same:

| there | here |
|---|---|
| `reload_model.sh -p`, `--path` · `-t`, `--timeout` | the same |
| `reload_model.sh -u`, `--url` | `--host` |
| `reload_model.sh --detection`, `--classification` | `--kind detection`, `--kind classification` |
| `backup_release.sh -o`, `--onnx` · `-a`, `--all-onnx` | the same; all is the default |
| `system_maintenance.sh -n`, `--dry-run` | the same, of `maintenance.sh` |
| `-e DIR`, `--exp-dir DIR` | refused: `PILLSNAP_EXP_DIR=DIR` before the command |
| `-k KEY`, `--key KEY` | refused: the key stands in `.env`, where nobody else sees it |
| `-v`, `--verbose` · `--no-verify` | refused: every step is shown, every switch confirmed |
"""
SCRIPTS = """## Windows scripts

Written from the comments in the scripts; how they are used: [WINDOWS.md](WINDOWS.md).
`Register-Tasks.ps1` takes those of the two others as well.
"""
PARAMETER = re.compile(
    r"^((?: +#[^\n]*\n)*)"  # the comment above it
    r" +(?:\[Validate(\w+)\(([^\n]+?)\)\])?\[\w+\]\$(\w+)(?: = '?([^\n]*?)'?)?,?$",
    re.MULTILINE,
)


def render() -> str:
    """Return the whole document."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="pillops")
    _, usage, rest = html.unescape(text).partition("**Usage**")
    helps = list(_helps(command))

    def in_full(match: re.Match[str]) -> str:
        return next(one for one in helps if one.startswith(match[1])) + "\n"

    rest = re.sub(r"(?<=`: )(.+)\.\.\.\n", in_full, rest)
    tables = [_tabulate(path) for path in sorted((ROOT / "scripts").glob("*.ps1"))]
    return f"{NOTE}\n{usage}{rest.rstrip()}\n\n{SCRIPTS}\n{''.join(tables).rstrip()}\n"


def _tabulate(script: Path) -> str:
    """The parameters of a script as a table; of those that it passes on, none."""
    text = script.read_text()
    own = text.partition("\nparam(\n")[2].partition("\n)\n")[0].split("\n\n")[0]
    rows = [f"| `{script.name}` | default | allowed | meaning |", "|---|---|---|---|"]
    for comment, check, values, name, default in PARAMETER.findall(own):
        between = {"Range": " to ", "Set": " or "}.get(check)
        allowed = between.join(values.replace("'", "").split(", ")) if between else ""
        said = " ".join(line.strip(" #") for line in comment.splitlines()).replace("<", r"\<")
        rows.append(f"| `-{name}` | {f'`{default}`' if default else ''} | {allowed} | {said} |")
    if "SupportsShouldProcess" in text:
        rows.append("| `-WhatIf` | | | Show what would be done. |")
    return "\n".join(rows) + "\n\n"


def _helps(command: Any) -> Iterator[str]:
    """The first line of each command's help; typer cuts it short in lists."""
    for one in getattr(command, "commands", {}).values():
        yield " ".join((one.help or "").split("\n\n")[0].split())
        yield from _helps(one)


def main() -> int:
    """Write the document, or with `--check` say whether it has drifted."""
    wanted = render()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.exists() and TARGET.read_text() == wanted else 3
    TARGET.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
