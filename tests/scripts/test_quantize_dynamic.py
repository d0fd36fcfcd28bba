"""`scripts/quantize_dynamic.py` as a person calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto

from tests.models import write_onnx
from tests.ops.quantize.test_run import make_config, write_colour_model
from tests.running import run_python

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/quantize_dynamic.py"
EXTRA = "quantize: {budget_s: 2, samples: 12, batch: [1]}\nonnx: {providers: [CPU]}\n"


def call(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_python([sys.executable, SCRIPT, *map(str, arguments)], cwd=folder)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_model_and_out_alone_are_enough(tmp_path: Path) -> None:
    make_config(tmp_path, EXTRA)
    answer = call(
        tmp_path, "--model", "exp/export/m.onnx", "--out", "int8.onnx", "--json", "record.json"
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "int8.onnx").stat().st_size > 0
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["schema"] == "quantize/1"
    assert record["inputs"]["count"] == 12
    assert "Dynamic QInt8 (required)" in answer.stdout
    assert "pass" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-samples", "500"], "only 18 images match"),
        (["--n-samples", "many"], "expected a whole number from 1 up, or all"),
        (["--out", "exp/export/m.onnx"], "is the input model itself"),
        (["--out", "link.onnx"], "is the input model itself"),
        (["--out", "exp/export"], "ends in .onnx"),
        (["--max-drop", "0"], "expected points above 0"),
        (["--budget", "0"], "expected seconds above 0"),
        (["--inputs", "nothing/*.jpg"], "no image matches"),
        (["--calibration", "nothing/*.jpg"], "--calibration nothing/*.jpg: no image matches"),
        (["--calibration", "images/val/**/*.jpg", "--n-samples", "all"], "is validated on too"),
        (["--model", "half.onnx"], "a float16 model"),
        (["--model", "torn.onnx"], "torn.onnx.data is missing"),
        (["--model", "foreign.onnx", "--require-labels"], "--require-labels"),
    ],
)
def test_bad_input_is_one_line_and_leaves_everything_as_it_was(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    make_config(tmp_path, EXTRA)
    (tmp_path / "link.onnx").symlink_to("exp/export/m.onnx")
    write_onnx(tmp_path / "half.onnx", dtype=TensorProto.FLOAT16)
    write_colour_model(tmp_path / "torn.onnx", sidecar=True)
    (tmp_path / "torn.onnx.data").unlink()
    write_colour_model(tmp_path / "foreign.onnx")
    before = snapshot(tmp_path)
    given = [] if "--out" in arguments else ["--out", "int8.onnx"]
    answer = call(tmp_path, *given, *arguments)
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert answer.returncode == 2, answer.stderr
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in answer.stderr
    assert snapshot(tmp_path) == before
