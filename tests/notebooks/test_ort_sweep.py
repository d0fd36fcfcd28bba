"""The sweep's notebook by plain papermill, on an experiment of its own."""

import json
from pathlib import Path

import pytest

from opslib.telling.scraps import read_scraps
from tests.models import write_config, write_images, write_onnx
from tests.notebooks.test_notebooks import papermill

QUICK = "sweep: {batch: [1], budget_s: 5, spinning: [false], parity_images: 2, threads: [0, 1]}\n"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of four images and one small model, and what its sweep's notebook says."""
    folder = tmp_path_factory.mktemp("sweep")
    write_images(folder / "images/val/a", 4)
    write_onnx(folder / "exp/export/m.onnx")
    write_config(folder, QUICK)
    answer = papermill(folder, "02_ort_sweep")
    assert answer.returncode == 0, answer.stderr
    return folder


def test_the_sweep_runs_by_plain_papermill(experiment: Path) -> None:
    scraps = read_scraps(experiment / "out.ipynb")
    assert scraps["verdict"].value in ("pass", "inconclusive")
    assert scraps["best_throughput_img_s"].unit == "img/s"
    record = json.loads(Path(scraps["record"].value).read_text())
    assert record["schema"] == "ort_bench/1"
    assert (experiment / "exp/reports/ort_bench.json").is_file()


def test_the_progress_bar_is_gone_from_the_report(experiment: Path) -> None:
    assert "<progress" not in (experiment / "out.ipynb").read_text()
