import json
import os
import re
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from opslib.core.errors import InputError
from opslib.core.secrets import MASK
from opslib.runs import catalogue
from opslib.runs.adopt import adopt_notebook
from opslib.runs.catalogue import CACHE_FILE, scan_runs
from opslib.runs.evidence import find_change
from opslib.runs.index import build_index
from opslib.runs.redaction import known_secrets
from opslib.runs.run_record import RUN_FILE, RunProblem, RunRecord
from opslib.telling.scraps import Scrap
from tests.runs.makers import (
    bench_row,
    make_bench,
    make_lineage,
    make_run,
    toy_notebook,
    write_run,
)


def plain_notebook(*cells: Any, seconds: int = 0) -> Any:
    """A notebook as plain papermill leaves it: every cell called complete."""
    notebook = new_notebook(
        metadata={
            "papermill": {
                "start_time": f"2026-11-20T10:00:{seconds:02d}+09:00",
                "end_time": "2026-11-20T10:01:00+09:00",
                "duration": 60.0,
                "parameters": {"batch": "1"},
                "exception": None,
            }
        }
    )
    notebook.cells = list(cells)
    for cell in notebook.cells:
        cell.metadata["papermill"] = {"status": "completed", "start_time": None}
        if cell.get("execution_count"):
            cell.metadata["papermill"]["start_time"] = "2026-11-20T10:00:01+09:00"
    return notebook


def scrap_output(name: str, value: Any) -> Any:
    payload = {"name": name, "data": value, "encoder": "json", "version": 1}
    return new_output("display_data", data={"application/scrapbook.scrap.json+json": payload})


def page_of(root: Path) -> str:
    return build_index(root).read_text()


def test_runs_are_listed_newest_first_with_verdict_finding_and_figures(tmp_path: Path) -> None:
    for number in (1, 3, 2):
        write_run(tmp_path, make_run(number, finding=f"Finding {number}."))
    page = page_of(tmp_path)
    table = page[page.index('id="runs"') :]
    assert re.findall(r"Finding \d", table) == ["Finding 3", "Finding 2", "Finding 1"]
    assert "Median, batch 1: 1.25 ms" in table
    assert ">Pass<" in table
    for href in re.findall(r'href="([^"#]+)"', page):
        assert href == "data:," or (tmp_path / href).exists()


def test_failed_and_interrupted_runs_are_seen(tmp_path: Path) -> None:
    problem = RunProblem(message="The kernel died during code cell 3.", cell=3)
    write_run(tmp_path, make_run(1))
    write_run(tmp_path, make_run(2, status="kernel_died", exit_code=138, problem=problem))
    page = page_of(tmp_path)
    assert "Kernel died" in page
    assert "The kernel died during code cell 3." in page
    assert "1 of them did not finish" in page


def test_an_empty_report_folder_says_how_to_make_a_run(tmp_path: Path) -> None:
    assert "pillops run bench" in page_of(tmp_path)


def test_a_record_that_cannot_be_read_is_listed_as_broken(tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_run(1))
    (folder / RUN_FILE).write_text("{")
    page = page_of(tmp_path)
    assert ">Broken<" in page
    assert "cannot be read" in page


def test_hidden_folders_of_unfinished_reports_are_not_listed(tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_run(1))
    folder.rename(folder.with_name(f".{folder.name}.partial"))
    assert scan_runs(tmp_path) == []


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    write_run(tmp_path, make_run(1, title=hostile, finding=hostile))
    page = page_of(tmp_path)
    assert page.count("<script>") == 1
    assert "&lt;script&gt;" in page


def test_only_new_runs_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_run(tmp_path, make_run(number))
    build_index(tmp_path)
    read: list[Path] = []
    original = catalogue._read_row

    def count(path: Path, relative: str) -> Any:
        read.append(path)
        return original(path, relative)

    monkeypatch.setattr(catalogue, "_read_row", count)
    newest = write_run(tmp_path, make_run(7))
    rows = scan_runs(tmp_path)
    assert read == [newest / RUN_FILE]
    assert len(rows) == 4
    assert scan_runs(tmp_path) == rows


@pytest.mark.parametrize("content", ["", "[]", '{"version": 0, "runs": {}}', '{"version": 2}'])
def test_a_damaged_or_old_cache_is_built_anew(tmp_path: Path, content: str) -> None:
    write_run(tmp_path, make_run(1))
    (tmp_path / CACHE_FILE).write_text(content)
    assert len(scan_runs(tmp_path)) == 1


def test_runs_of_a_notebook_that_was_renamed_are_listed_under_the_name_they_were_made_by(
    tmp_path: Path,
) -> None:
    for number, name in enumerate(("09_served_sweep", "10_served_sweep")):
        write_run(tmp_path, make_run(number, notebook=name))
    page = build_index(tmp_path).read_text()
    for row in scan_runs(tmp_path):
        assert f">{row.notebook}</a>" in page
        assert (tmp_path / row.href).is_file()


def test_a_removed_run_leaves_the_index(tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_run(1))
    assert len(scan_runs(tmp_path)) == 1
    (folder / RUN_FILE).unlink()
    assert scan_runs(tmp_path) == []


def test_a_notebook_of_plain_papermill_is_adopted(tmp_path: Path) -> None:
    cell = new_code_cell(
        "x",
        execution_count=1,
        outputs=[scrap_output("verdict", "fail"), scrap_output("finding", "Too slow.")],
    )
    nbformat.write(plain_notebook(cell), tmp_path / "nightly.ipynb")
    page = page_of(tmp_path)
    assert 'href="nightly.html"' in page
    assert "Too slow." in page
    run = RunRecord.read(tmp_path / "nightly.run.json")
    assert (run.status, run.verdict, run.exit_code) == ("finished", "fail", 3)
    assert (run.started, run.duration_s) == ("2026-11-20T01:00:00Z", 60.0)
    assert run.parameters == {"batch": "1"}
    assert "Too slow." in (tmp_path / "nightly.html").read_text()


def test_a_green_looking_notebook_that_was_cut_short_is_not_believed(tmp_path: Path) -> None:
    cells = (new_code_cell("a", execution_count=1), new_code_cell("b"), new_code_cell("c"))
    path = tmp_path / "nightly.ipynb"
    nbformat.write(plain_notebook(*cells), path)
    run = adopt_notebook(path, tmp_path, frozenset())
    assert (run.status, run.exit_code) == ("terminated", 143)
    assert "cut short at code cell 1" in run.sentence


def test_a_notebook_that_raised_is_adopted_as_failed(tmp_path: Path) -> None:
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    path = tmp_path / "nightly.ipynb"
    nbformat.write(plain_notebook(new_code_cell("a", execution_count=1, outputs=[error])), path)
    run = adopt_notebook(path, tmp_path, frozenset())
    assert (run.status, run.sentence) == ("cell_raised", "Code cell 1 raised ValueError: no")


def test_a_record_whose_links_lead_in_a_circle_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "2026-11-01" / "120000-01_bench-abcdef"
    folder.mkdir(parents=True)
    (folder / "run.json").symlink_to("run.json")
    assert build_index(tmp_path).exists()


def test_a_secret_in_an_adopted_notebook_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "0123456789abcdef")
    leak = new_output("stream", name="stdout", text="key 0123456789abcdef")
    path = tmp_path / "nightly.ipynb"
    nbformat.write(plain_notebook(new_code_cell("a", execution_count=1, outputs=[leak])), path)
    run = adopt_notebook(path, tmp_path, known_secrets())
    assert run.exit_code == 7
    for name in ("nightly.ipynb", "nightly.html", "nightly.run.json"):
        assert "0123456789abcdef" not in (tmp_path / name).read_text()
    assert MASK in path.read_text()


def test_a_notebook_that_was_written_again_is_adopted_again(tmp_path: Path) -> None:
    path = tmp_path / "nightly.ipynb"
    for value in ("First.", "Second."):
        cell = new_code_cell("x", execution_count=1, outputs=[scrap_output("finding", value)])
        nbformat.write(plain_notebook(cell), path)
        later = time.time() + len(value)
        os.utime(path, (later, later))
        assert value in page_of(tmp_path)


def test_a_broken_and_an_unexecuted_notebook_are_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.ipynb").write_text("{")
    nbformat.write(toy_notebook("1"), tmp_path / "fresh.ipynb")
    page = page_of(tmp_path)
    assert page.count(">Broken<") >= 2
    assert "was never executed" in page
    with pytest.raises(InputError, match="never executed"):
        adopt_notebook(tmp_path / "fresh.ipynb", tmp_path, frozenset())


def test_a_run_kept_as_cited_is_listed_once_by_its_original(tmp_path: Path) -> None:
    run = make_run(1)
    folder = write_run(tmp_path, run)
    cited = tmp_path / "cited" / run.id
    cited.mkdir(parents=True)
    (cited / RUN_FILE).write_text((folder / RUN_FILE).read_text())
    rows = scan_runs(tmp_path)
    assert [row.record_path.startswith("cited/") for row in rows] == [False]


def test_the_change_is_taken_against_the_last_comparable_run(tmp_path: Path) -> None:
    root = tmp_path / "reports"
    write_run(root, make_run(1), make_bench([bench_row(2.0)]))
    write_run(root, make_run(2, parameters={"batch": "8"}), make_bench([bench_row(9.0)]))
    write_run(root, make_run(3, lineage=make_lineage("ffffffffffff")), make_bench())
    write_run(root, make_run(4, status="timeout", exit_code=5), make_bench())
    new = make_run(9)
    folder = write_run(tmp_path / "elsewhere", new, make_bench([bench_row(2.4)]))
    run = RunRecord.read(folder / RUN_FILE)
    change = find_change(root, run, folder)
    assert change is not None
    assert change.against_id == make_run(1).id
    assert (change.worse, change.better) == (1, 0)
    assert "20.0 % slower" in change.summary
    assert (root / change.against_path).exists()


def test_the_change_is_taken_on_the_same_host_and_not_on_its_twin(tmp_path: Path) -> None:
    write_run(tmp_path, make_run(1, lineage=make_lineage(name="one")))
    write_run(tmp_path, make_run(2, lineage=make_lineage(name="twin")))
    change = find_change(tmp_path, make_run(3, lineage=make_lineage(name="one")), tmp_path)
    assert change is not None
    assert change.against_id == make_run(1).id
    assert find_change(tmp_path, make_run(4, lineage=make_lineage(name="new")), tmp_path) is None


def test_figures_without_a_record_are_compared_as_they_are_and_say_so(tmp_path: Path) -> None:
    write_run(tmp_path, make_run(1))
    figure = Scrap(name="p50", value=1.0, unit="ms", better="lower", label="Median")
    change = find_change(tmp_path, make_run(2, key_figures=(figure,)), tmp_path)
    assert change is not None
    assert change.summary == "Median −20.0 % (not tested)"


def test_the_first_run_and_a_failed_one_have_no_change(tmp_path: Path) -> None:
    assert find_change(tmp_path, make_run(1), tmp_path) is None
    write_run(tmp_path, make_run(1))
    assert find_change(tmp_path, make_run(2, status="timeout"), tmp_path) is None


def test_a_thousand_runs_fit_on_a_page_of_half_a_megabyte(tmp_path: Path) -> None:
    rows = [
        catalogue._make_row(make_run(number), f"2026-11-23/{number:06d}-01_bench-abcdef/run.json")
        for number in range(1000)
    ]
    from opslib.runs.index import render_index

    assert len(render_index(rows).encode()) <= 500_000


def test_the_cache_is_plain_json_beside_the_page(tmp_path: Path) -> None:
    write_run(tmp_path, make_run(1))
    build_index(tmp_path)
    assert json.loads((tmp_path / CACHE_FILE).read_text())["runs"]


def test_a_record_that_cannot_be_read_any_more_costs_no_report(tmp_path: Path) -> None:
    root = tmp_path / "reports"
    write_run(root, make_run(1), make_bench([bench_row(2.0)]))
    newer = write_run(root, make_run(2), make_bench([bench_row(2.0)]))
    for path in newer.glob("bench_*.json"):
        path.write_text(path.read_text().replace('"rows"', '"of_another_version"'))
    folder = write_run(tmp_path / "elsewhere", make_run(3), make_bench([bench_row(2.4)]))
    change = find_change(root, RunRecord.read(folder / RUN_FILE), folder)
    assert change is not None
    assert change.against_id == make_run(1).id


@pytest.mark.parametrize(
    "metadata",
    [
        {"pillops": 7},
        {"papermill": 7},
        {"papermill": {"start_time": "2026-11-20T10:00:00+09:00", "duration": "xx"}},
        {"papermill": {"start_time": "2026-11-20T10:00:00+09:00", "duration": 1e999}},
    ],
)
def test_a_stray_notebook_with_impossible_metadata_is_listed_as_broken(
    tmp_path: Path, metadata: dict[str, Any]
) -> None:
    notebook = plain_notebook(new_code_cell("1", execution_count=1))
    notebook.metadata.update(metadata)
    (tmp_path / "stray.ipynb").write_text(json.dumps(notebook))
    assert "Broken: cannot be read as" in build_index(tmp_path).read_text()


def test_a_stray_notebook_whose_verdict_is_a_list_is_listed_as_broken(tmp_path: Path) -> None:
    payload = {"name": "verdict", "data": ["pass"], "encoder": "json", "version": 1}
    mime = "application/scrapbook.scrap.json+json"
    cell = new_code_cell("1", execution_count=1, outputs=[new_output("display_data", {mime: {}})])
    cell.outputs[0].data[mime] = payload
    (tmp_path / "stray.ipynb").write_text(json.dumps(plain_notebook(cell)))
    assert "Broken: cannot be read as" in build_index(tmp_path).read_text()


@pytest.mark.parametrize(
    "text",
    ['{"cells": null, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "[" * 100_000],
)
def test_a_stray_file_that_only_looks_like_a_notebook_is_listed_as_broken(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "stray.ipynb").write_text(text)
    (tmp_path / "run.run.json").write_text(text)
    page = build_index(tmp_path).read_text()
    assert "Broken: not a notebook" in page
    assert "Its record cannot be read" in page


def test_a_run_dated_after_now_is_nobodys_newest_and_comes_last(tmp_path: Path) -> None:
    ahead = make_run(2, started="2090-01-01T10:00:02Z", ended="2090-01-01T10:00:03Z")
    for run in (make_run(0), ahead, make_run(1)):
        write_run(tmp_path, run)
    assert [row.id for row in scan_runs(tmp_path)] == [
        run.id for run in (make_run(1), make_run(0), ahead)
    ]
    page = build_index(tmp_path).read_text()
    assert "Newest: 2026-01-01 10:00 UTC. 1 run dated after now, listed last" in page
    cards = page[page.index('class="latest"') : page.index("All runs")]
    assert "2090" not in cards
