"""The sweep's notebook by plain papermill, on an experiment of its own."""

import json
from pathlib import Path

import pytest

from opslib.telling.scraps import read_scraps
from tests.models import write_config, write_images, write_onnx
from tests.notebooks.test_notebooks import papermill

QUICK = "sweep: {batch: [1], budget_s: 5, spinning: [false], parity_images: 2, threads: [0, 1]}\n"


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment of four images and one small model."""
    write_images(tmp_path / "images/val/a", 4)
    write_onnx(tmp_path / "exp/export/m.onnx")
    write_config(tmp_path, QUICK)
    return tmp_path


def test_the_sweep_runs_by_plain_papermill(experiment: Path) -> None:
    answer = papermill(experiment, "02_ort_sweep")
    assert answer.returncode == 0, answer.stderr
    scraps = read_scraps(experiment / "out.ipynb")
    assert scraps["verdict"].value in ("pass", "inconclusive")
    assert scraps["best_throughput_img_s"].unit == "img/s"
    record = json.loads(Path(scraps["record"].value).read_text())
    assert record["schema"] == "ort_bench/1"
    assert (experiment / "exp/reports/ort_bench.json").is_file()


def test_the_progress_bar_is_gone_from_the_report(experiment: Path) -> None:
    papermill(experiment, "02_ort_sweep")
    assert "<progress" not in (experiment / "out.ipynb").read_text()
