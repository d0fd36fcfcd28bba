"""The notebook of the sweep as served by plain papermill, on an experiment of its own."""

import json
from pathlib import Path

from opslib.telling.scraps import read_scraps
from tests.models import write_config, write_images, write_onnx
from tests.notebooks.test_notebooks import papermill

QUICK = (
    "sweep: {served_budget_s: 4, workers: [0], threads: [1], spinning: [true], parity_images: 2,"
    " finalists: 2}\n"
)


def test_the_sweep_of_the_service_runs_by_plain_papermill(tmp_path: Path) -> None:
    write_images(tmp_path / "images/val/a", 4)
    write_onnx(tmp_path / "exp/export/m.onnx")
    write_config(tmp_path, QUICK)
    answer = papermill(tmp_path, "10_served_sweep")
    assert answer.returncode == 0, answer.stderr
    scraps = read_scraps(tmp_path / "out.ipynb")
    assert scraps["verdict"].value in ("pass", "inconclusive")
    assert scraps["best_rate_per_s"].unit == "requests/s"
    assert scraps["rows_measured"].value == 2
    record = json.loads(Path(scraps["record"].value).read_text())
    assert record["schema"] == "served_sweep/1"
    assert (tmp_path / "exp/reports/served_sweep.json").is_file()
    assert "<progress" not in (tmp_path / "out.ipynb").read_text()
