"""A team's own checkpoint beside its export: measured, or one line that says what to set."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from opslib.core.config import Config, load_config
from opslib.ops.bench.request import BenchRequest
from opslib.ops.bench.run import run_bench
from tests.inference.test_checkpoint import NETS, plain_values
from tests.models import write_config, write_images, write_onnx
from tests.running import run_python

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """\
onnx: {providers: [CPU]}
bench: {engine: both, batch: [1], budget_s: 0.01}
parity: {samples: 4}
"""


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An export, and in the training's own place the checkpoint that it came from."""
    import importlib

    import onnx
    import torch
    from onnx import numpy_helper

    (tmp_path / "code").mkdir()
    name = f"team_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"code/{name}.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    nets = importlib.import_module(name)
    write_images(tmp_path / "images/val/a", 4)
    model = onnx.load(write_onnx(tmp_path / "exp/export/m.onnx"))
    weight, bias = (numpy_helper.to_array(one) for one in model.graph.initializer)
    place = tmp_path / "exp/artifacts/stage3/checkpoints/stage3_classification_best.pt"
    place.parent.mkdir(parents=True)
    weights = {
        "module.2.weight": torch.from_numpy(np.array(weight.T)),
        "module.2.bias": torch.from_numpy(np.array(bias)),
    }
    config = nets.TrainConfig()
    torch.save(plain_values() | {"model_state_dict": weights, "config": config}, place)
    return tmp_path


def configure(folder: Path, *, allowed: str = "") -> Config:
    name = next((folder / "code").glob("team_*.py")).stem
    allow = f"{name}:{allowed}" if allowed else ""
    text = f"torch: {{factory: '{name}:linear', safe_globals: '{allow}'}}\n"
    path = write_config(folder, SETTINGS + text)
    path.write_text(path.read_text().replace("paths:\n", "paths:\n  code_root: code\n"))
    return load_config(path, {})


def test_it_is_found_read_and_answers_like_its_export(team: Path) -> None:
    record = run_bench(configure(team, allowed="TrainConfig"), BenchRequest())
    assert record.checkpoint is not None
    assert record.checkpoint.name == "stage3_classification_best.pt"
    assert record.parity is not None
    assert record.parity.passed
    assert {row.engine for row in record.rows} == {"onnx", "torch"}


def test_the_script_says_in_one_line_what_to_set(team: Path) -> None:
    config = configure(team)
    script = ROOT / "scripts/perf_bench_infer.py"
    answer = run_python(
        [sys.executable, str(script), "--engine", "both", "--config", str(config.source)],
        timeout=120,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert answer.returncode == 2
    line = answer.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert ':TrainConfig"], found below paths.code_root' in line
    assert "Traceback" not in answer.stderr + answer.stdout


def test_preprocessing_that_raises_is_named_in_one_line(team: Path) -> None:
    (team / "code/their_pre.py").write_text(
        "def preprocess(paths, img_size):\n    raise RuntimeError('no card\\nhere')\n"
    )
    config = configure(team, allowed="TrainConfig")
    section = config.preprocess.model_copy(update={"function": "their_pre:preprocess"})
    with pytest.raises(Exception, match=r"their_pre:preprocess raised RuntimeError: no card here"):
        run_bench(config.model_copy(update={"preprocess": section}), BenchRequest())
