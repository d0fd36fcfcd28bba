"""The notebook of all hosts by plain papermill, on a desk of its own."""

import json
from pathlib import Path

from opslib.telling.scraps import read_scraps
from tests.models import write_config
from tests.notebooks.test_notebooks import papermill
from tests.ops.fleet.makers import NEW, OLD, add_benches, note


def test_the_report_over_all_hosts_runs_by_plain_papermill(tmp_path: Path) -> None:
    desk = tmp_path / "desk"
    for name, whole, model in (("one", 1.0, NEW), ("two", 1.0, NEW), ("three", 1.3, OLD)):
        add_benches(desk, name, whole=whole, served=note(model))
    write_config(tmp_path)
    (tmp_path / "exp").mkdir(exist_ok=True)
    answer = papermill(tmp_path, "09_fleet", "-p", "report_dir", str(desk))
    assert answer.returncode == 0, answer.stderr
    scraps = read_scraps(tmp_path / "out.ipynb")
    assert (scraps["verdict"].value, scraps["exit_code"].value) == ("fail", 3)
    told = [scraps[name].value for name in ("hosts", "slower", "behind", "silent", "not_compared")]
    assert told == [3, 1, 1, 0, 0]
    record = json.loads(Path(scraps["record"].value).read_text())
    assert record["schema"] == "fleet/1"
    text = (tmp_path / "out.ipynb").read_text()
    assert text.count("<figure") == 2
    assert "slower than its like" in text


def test_a_desk_without_a_run_makes_a_report_that_says_so(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "desk").mkdir()
    answer = papermill(tmp_path, "09_fleet", "-p", "report_dir", str(tmp_path / "desk"))
    assert answer.returncode == 0, answer.stderr
    scraps = read_scraps(tmp_path / "out.ipynb")
    assert (scraps["verdict"].value, scraps["exit_code"].value) == ("inconclusive", 4)
    assert "there is nothing to compare" in scraps["finding"].value
