"""Every notebook is thin, clean and runs by plain papermill on an experiment of its own."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from opslib.runs.parameters import read_parameters
from opslib.telling.scraps import read_scraps
from tests.models import write_config, write_images, write_onnx
from tests.running import run_python

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OPERATIONS = [path for path in NOTEBOOKS if not path.stem.startswith("00_")]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_committed_without_outputs_and_with_stable_ids(path: Path) -> None:
    notebook = read(path)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert re.fullmatch(r"[a-z][a-z0-9-]{2,}", cell.id), f"{cell.id} was not chosen by hand"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_holds_no_logic(path: Path) -> None:
    logic = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try, ast.Lambda)
    for cell in read(path).cells:
        if cell.cell_type == "code":
            nodes = list(ast.walk(ast.parse(cell.source)))
            assert not [node for node in nodes if isinstance(node, logic)], cell.id


@pytest.mark.parametrize("path", OPERATIONS, ids=name)
def test_a_notebook_opens_with_its_question_and_explains_its_parameters(path: Path) -> None:
    notebook = read(path)
    assert re.match(r"# .+\?\n", notebook.cells[0].source)
    specs = read_parameters(notebook)
    assert specs
    assert all(spec.help for spec in specs.values())


@pytest.mark.parametrize("path", OPERATIONS, ids=name)
def test_a_notebook_shows_its_verdict_and_ends_with_its_scraps(path: Path) -> None:
    codes = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    assert any("show_verdict" in code for code in codes)
    assert "publish" in codes[-1]


def papermill(folder: Path, notebook: str, *parameters: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += [str(ROOT / f"notebooks/{notebook}.ipynb"), str(folder / "out.ipynb")]
    env = {**os.environ, "PILLSNAP_CONFIG": str(folder / "config.yaml"), "CUDA_VISIBLE_DEVICES": ""}
    return run_python([*command, *parameters], env=env, cwd=folder, timeout=180)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    write_images(tmp_path / "images/val/a", 4)
    write_onnx(tmp_path / "exp/export/m.onnx")
    extra = "bench: {target_half_width_pct: 1.0e+30, engine: onnx, batch: [1, 2]}\n"
    write_config(tmp_path, extra)
    return tmp_path


@pytest.mark.alone
def test_the_benchmark_runs_by_plain_papermill(experiment: Path) -> None:
    answer = papermill(experiment, "01_bench", "-p", "budget_s", "7")
    assert answer.returncode == 0, answer.stderr
    scraps = read_scraps(experiment / "out.ipynb")
    assert scraps["verdict"].value == "pass"
    assert scraps["onnx_p50_ms"].unit == "ms"
    record = json.loads(Path(scraps["record"].value).read_text())
    assert record["schema"] == "bench/1"


def test_without_a_model_the_notebook_says_in_one_line_how_to_make_one(experiment: Path) -> None:
    (experiment / "exp/export/m.onnx").unlink()
    answer = papermill(experiment, "01_bench")
    assert answer.returncode == 1
    said = [line for line in answer.stderr.splitlines() if "make the demo with `make demo`" in line]
    assert said
    assert not [line for line in answer.stderr.splitlines() if "opslib/measure" in line]
