"""The door of the sweep as served: what is shown, and bad input in one line."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from opslib.ops.served_sweep.command import show_served_sweep
from opslib.ops.served_sweep.record import Goal
from opslib.ops.served_sweep.request import ServedSweepRequest
from tests.models import write_config, write_images, write_onnx
from tests.ops.served_sweep.makers import make_served
from tests.running import run_python


def call(*options: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "opslib.cli", "sweep-served", *options]
    return run_python(command, cwd=folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--objective", "p50"), "--objective: unknown objective 'p50'"),
        (("--objective", "p99"), "--rate: missing"),
        (("--p99-limit", "-3"), "--p99-limit: got -3"),
        (("--model", "nowhere.onnx"), "nowhere.onnx: no such file"),
        (("--inputs", "nowhere/*.jpg"), "no image matches"),
        (("--json", "."), "--json .: is a folder"),
    ],
)
def test_bad_input_ends_with_one_line_and_2(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    write_images(tmp_path / "images/val/a", 2)
    write_onnx(tmp_path / "exp/export/m.onnx")
    write_config(tmp_path)
    answer = call(*options, folder=tmp_path)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "exp/reports/served_sweep.json").exists()


def test_an_impossible_key_is_named(tmp_path: Path) -> None:
    write_config(tmp_path, "sweep: {p99_limit_ms: 0}\n")
    answer = call(folder=tmp_path)
    assert answer.returncode == 2
    assert "sweep.p99_limit_ms: got 0: input should be greater than 0" in answer.stderr


def test_the_terminal_shows_figures_refusals_and_the_verdict() -> None:
    console = Console(width=140, record=True, file=StringIO())
    show_served_sweep(console, make_served())
    said = console.export_text()
    for text in ("requests/s", "1,000", "recommended, best", "pass: Set it so."):
        assert text in said
    assert "row 4: unavailable: its p99 is over 100 ms at 3 requests a second too" in said
    assert "equivalent to row" not in said


def test_at_a_rate_the_terminal_shows_the_p99() -> None:
    console = Console(width=140, record=True, file=StringIO())
    show_served_sweep(console, make_served(goal=Goal(objective="p99", rate_per_s=50.0)))
    assert "p99 ms" in console.export_text()


def test_notebook_parameters_become_a_request() -> None:
    assert ServedSweepRequest(model="m.onnx", fresh=True) == ServedSweepRequest(
        model=Path("m.onnx"), fresh=True
    )
