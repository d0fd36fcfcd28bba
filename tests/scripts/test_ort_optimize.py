"""The sweep's two doors, as programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import write_config, write_images, write_onnx
from tests.ops.sweep.makers import make_sweep
from tests.running import run_python

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/ort_optimize.py"
QUICK = (
    "sweep: {batch: [1], budget_s: 5, spinning: [false], parity_images: 2, threads: [0]}\n"
    "onnx:\n  allow_spinning: true   # kept\n"
)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment of four images and one small model; returns its configuration."""
    write_images(tmp_path / "images/val/a", 4)
    write_onnx(tmp_path / "exp/export/m.onnx")
    return write_config(tmp_path, QUICK)


def call(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return run_python([sys.executable, *map(str, arguments)], cwd=folder, env=environment)


def test_it_runs_with_no_arguments_and_leaves_both_records(experiment: Path) -> None:
    answer = call(SCRIPT, folder=experiment.parent)
    assert answer.returncode in (0, 4), answer.stderr
    reports = experiment.parent / "exp/reports"
    newest = json.loads((reports / "ort_bench.json").read_text())
    assert newest["schema"] == "ort_bench/1"
    assert len(list(reports.glob("ort_bench_2*.json"))) == 1
    assert "racing at batch 1" in answer.stderr
    assert "no NVIDIA driver" in answer.stdout or "build has no" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--objective", "p99"), "unknown objective 'p99'"),
        (("--model", "nowhere.onnx"), "nowhere.onnx: no such file"),
        (("--batch", "1,x"), "--batch: got '1,x'"),
        (("--inputs", "nowhere/*.jpg"), "no image matches"),
    ],
)
def test_bad_input_ends_with_one_line_and_2(
    experiment: Path, arguments: tuple[str, ...], message: str
) -> None:
    answer = call(SCRIPT, *arguments, folder=experiment.parent)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (experiment.parent / "exp/reports/ort_bench.json").exists()


def test_apply_shows_the_plan_and_then_writes_it(experiment: Path) -> None:
    record = make_sweep().write(experiment.parent / "exp/reports/ort_bench.json")
    before = experiment.read_bytes()
    dry = call("-m", "opslib.cli", "apply", record, "--dry-run", folder=experiment.parent)
    assert dry.returncode == 0, dry.stderr
    assert "set onnx.allow_spinning: true -> false" in dry.stdout
    assert experiment.read_bytes() == before
    wet = call("-m", "opslib.cli", "apply", "ort_bench.json", folder=experiment.parent)
    assert wet.returncode == 0, wet.stderr
    assert "allow_spinning: false  # kept" in experiment.read_text()


def test_apply_refuses_what_is_no_sweep(experiment: Path) -> None:
    answer = call("-m", "opslib.cli", "apply", experiment, folder=experiment.parent)
    assert answer.returncode == 2
    assert "expected the record of a sweep, ort_bench/1 or served_sweep/1" in answer.stderr
