"""A forked call is to a program what an interpreter of its own is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT, run_python

PROGRAM = [sys.executable, "-m", "opslib.cli"]


def test_a_forked_call_says_and_ends_as_a_new_interpreter_does(tmp_path: Path) -> None:
    variables = {"PATH": "", "COLUMNS": "100", "HOME": str(tmp_path)}
    for words in (["--version"], ["release", "--help"], ["no-such-command"]):
        command = [*PROGRAM, *words]
        forked = run_python(command, env=variables, cwd=tmp_path)
        new = subprocess.run(
            command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert forked.returncode == new.returncode
        assert forked.stdout == new.stdout
        assert forked.stderr == new.stderr


def test_a_script_gets_its_words_its_folder_and_its_environment(tmp_path: Path) -> None:
    script = tmp_path / "say.py"
    script.write_text(
        "import os, sys\nprint(sys.argv[1:], os.getcwd(), os.environ['X'])\nexit(7)\n"
    )
    answer = run_python([sys.executable, script, "a", "b"], env={"X": "y"}, cwd=tmp_path)
    assert answer.stdout == f"['a', 'b'] {tmp_path} y\n"
    assert answer.returncode == 7


def test_one_that_hangs_is_killed_and_the_next_one_runs(tmp_path: Path) -> None:
    script = tmp_path / "hang.py"
    script.write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(subprocess.TimeoutExpired):
        run_python([sys.executable, script], cwd=ROOT, timeout=0.5)
    assert run_python([*PROGRAM, "--version"]).returncode == 0
