"""H-3: the rollback drill's notebook by plain papermill, on an experiment of its own."""

from __future__ import annotations

import json
from pathlib import Path

from opslib.telling.scraps import read_scraps
from tests.notebooks.test_notebooks import papermill
from tests.serving.conftest import Place


def test_the_drill_runs_by_plain_papermill(drill_place: Place) -> None:
    folder = drill_place.config_path.parent
    answer = papermill(folder, "05_rollback_drill", "-p", "swaps", "1")
    assert answer.returncode == 0, answer.stderr
    scraps = read_scraps(folder / "out.ipynb")
    assert scraps["verdict"].value in ("pass", "inconclusive"), scraps["finding"].value
    assert scraps["failed"].value == 0
    assert scraps["rollback_ms"].unit == "ms"
    record = json.loads(Path(scraps["record"].value).read_text())
    assert record["schema"] == "drill/1"
    assert not (drill_place.config.exp_dir / "served.json").exists()


def test_without_a_second_model_the_notebook_says_so_in_one_line(drill_place: Place) -> None:
    drill_place.first.unlink()
    answer = papermill(drill_place.config_path.parent, "05_rollback_drill")
    assert answer.returncode == 1
    assert [line for line in answer.stderr.splitlines() if "no second model; a drill" in line]
