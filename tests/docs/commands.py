"""Finding the commands that a document tells its reader to type."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import typer

from opslib.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = typer.main.get_command(app)
# What a reader types, and the words of `pillops` that it stands for.
DOORS = {
    "pillops": (),
    "scripts/backup_release.sh": ("release", "create"),
    "scripts/maintenance.sh": ("maintain",),
    "scripts/reload_model.sh": ("reload",),
    "scripts/ort_optimize.py": ("sweep",),
    "scripts/perf_bench_infer.py": ("bench",),
    "scripts/quantize_dynamic.py": ("quantize",),
}


def read_commands(document: Path) -> list[str]:
    """Return the lines of a document's `sh` blocks, comments cut off, each once."""
    blocks = re.findall(r"^ *```sh\n(.*?)```", document.read_text(), re.DOTALL | re.MULTILINE)
    lines = [re.split(r"\s+# ", line)[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def find_calls(document: Path) -> list[list[str]]:
    """Return the words for `pillops` of every call in a document's `sh` blocks."""
    blocks = re.findall(r"^ *```sh\n(.*?)```", document.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [call for line in lines for call in _calls_among(line)]


def find_mentions(document: Path) -> list[list[str]]:
    """Return the words for `pillops` of every call in a document's text, whole or in part."""
    code = re.findall(r"`((?:\.venv/bin/pillops|scripts/)[^`\n]+)`", document.read_text())
    return [call for line in code for call in _calls_among(line)]


def _calls_among(line: str) -> list[list[str]]:
    """The calls in a line of a shell."""
    if not any(door in line for door in DOORS):
        return []
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    calls, call = [], None
    for word in words:
        door = word.removeprefix(".venv/bin/")
        if call is None and door in DOORS:
            call = list(DOORS[door])
            calls.append(call)
        elif set(word) <= set("();<>|&"):
            call = None
        elif call is not None:
            call.append(word)
    return calls


def parse(words: list[str]) -> None:
    """Parse a call of `pillops` and run nothing.

    Raises:
        TyperException: there is no such command or option, or its value is malformed.
    """
    command, name, context = COMMAND, "pillops", None
    while True:
        context = command.make_context(name, words, parent=context)
        if not isinstance(command, typer.core.TyperGroup):
            return
        name, command, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )


def read_parts(document: str, *titles: str) -> str:
    """Return the parts of a document of `docs/` that are headed `## TITLE`."""
    parts = dict(_split(document))
    return "".join(parts[title] for title in titles)


def read_without(document: str, *titles: str) -> str:
    """Return a document of `docs/` without the parts that `read_parts` gives for the titles."""
    parts = _split(document)
    assert set(titles) <= {title for title, _ in parts}
    return "".join(text for title, text in parts if title not in titles)


def _split(document: str) -> list[tuple[str, str]]:
    pieces = re.split(r"^(?=## )", (ROOT / "docs" / document).read_text(), flags=re.MULTILINE)
    return [(piece.splitlines()[0].removeprefix("## "), piece) for piece in pieces]


def make_doors(folder: Path) -> None:
    """Lay `folder` out like a checkout: `.venv/bin/`, notebooks and scripts of this one."""
    bin_folder = folder / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    modules = (("pillops", "-m opslib.cli"), ("papermill", "-m papermill"), ("python", ""))
    for name, module in modules:  # a link to the interpreter would lose its packages
        door = bin_folder / name
        door.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        door.chmod(0o755)
    for name in ("notebooks", "scripts"):
        (folder / name).symlink_to(ROOT / name)


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without a service's settings, and with `variables`."""
    own = {k: v for k, v in os.environ.items() if k not in ("API_KEY", "MODEL_PATH")}
    return own | variables


def run_script(
    script: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run what a document says as its reader's shell in `folder` would, the key loaded from `.env`
    where it is used."""
    if "$API_KEY" in script:
        script = f"set -a; . ./.env; set +a\n{script}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def serve_until_ready(
    command: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command that serves, end it once it says that it does, and return what it said."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", f"exec env {command}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    deadline = threading.Timer(60, os.killpg, (process.pid, signal.SIGKILL))
    deadline.start()
    said = ""
    for line in process.stderr:
        said += line
        if ": serving " in line:
            process.terminate()
    deadline.cancel()
    return subprocess.CompletedProcess(command, process.wait(), "", said)
