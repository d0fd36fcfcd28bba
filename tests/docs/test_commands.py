"""docs/COMMANDS.md lists every command and every option, as the program has them."""

import sys
from pathlib import Path

from tests.running import run_python

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_what_the_program_says() -> None:
    answer = run_python([sys.executable, ROOT / "tools/commands.py", "--check"])
    assert answer.returncode == 0, "docs/COMMANDS.md has drifted: run `make reference`"


def test_no_help_is_cut_short() -> None:
    text = (ROOT / "docs" / "COMMANDS.md").read_text()
    assert "* `demo`: Build the demo experiment: pill images, a trained network" in text
    assert not [
        line for line in text.splitlines() if line.endswith("...") and line.startswith("* ")
    ]
