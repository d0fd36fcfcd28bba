import json
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from opslib.core.errors import ExitCode, InputError
from opslib.telling import scraps
from opslib.telling.json_values import to_json
from opslib.telling.scraps import publish, publish_outcome, read_scraps


class Shell:
    """A notebook's shell as far as scraps look at it; `run` starts the next cell."""

    def __init__(self) -> None:
        self.kernel = object()
        self.execution_count = 0
        self.history_manager = SimpleNamespace(input_hist_raw=[""])
        self.cell_id: str | None = None
        self.outputs: list[dict[str, Any]] = []

    def get_parent(self) -> dict[str, Any]:
        return {"metadata": {"cellId": self.cell_id} if self.cell_id else {}}

    def run(self, source: str, cell_id: str | None = None) -> None:
        self.execution_count += 1
        self.history_manager.input_hist_raw.append(source)
        self.cell_id = cell_id


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    import scrapbook

    shell = Shell()
    monkeypatch.setattr(scraps, "_shell", lambda: shell)
    monkeypatch.setattr(scraps, "_published", {})

    def glue(name: str, data: Any, encoder: str) -> None:
        payload = {"name": name, "data": data, "encoder": encoder, "version": 1}
        shell.outputs.append({f"application/scrapbook.scrap.{encoder}+json": payload})

    monkeypatch.setattr(scrapbook, "glue", glue)
    return shell


def save(folder: Path, *outputs: dict[str, Any]) -> Path:
    cell = new_code_cell("x", outputs=[new_output("display_data", data=data) for data in outputs])
    path = folder / "executed.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[cell]), path)
    return path


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (None, None),
        (float("nan"), None),
        (np.float64("inf"), None),
        (pd.NaT, None),
        (pd.NA, None),
        (np.datetime64("NaT"), None),
        (np.datetime64("2026-11-23T10:00:00"), "2026-11-23T10:00:00"),
        (pd.Timestamp("2026-11-23 10:00", tz="Asia/Seoul"), "2026-11-23T01:00:00+00:00"),
        (datetime(2026, 11, 23, tzinfo=UTC), "2026-11-23T00:00:00+00:00"),
        (date(2026, 11, 23), "2026-11-23"),
        (Path("a/b"), "a/b"),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (pd.Series([1, 2]), [1, 2]),
        (ExitCode.BUSY, 6),
        ({"a": np.int8(1), 2: (3.5, None)}, {"a": 1, "2": [3.5, None]}),
    ],
)
def test_values_become_json_with_explicit_nulls(value: Any, kept: Any) -> None:
    assert to_json(value, "x") == kept
    json.dumps(to_json(value, "x"), allow_nan=False)


def test_a_frame_becomes_columns_and_rows() -> None:
    frame = pd.DataFrame({"n": [1, 2], "ms": [0.5, np.nan], "at": [pd.Timestamp(0), pd.NaT]})
    assert to_json(frame, "x") == {
        "columns": ["n", "ms", "at"],
        "rows": [[1, 0.5, "1970-01-01T00:00:00"], [2, None, None]],
    }


def test_a_value_that_cannot_be_kept_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"scrap 'thing'.*object"):
        publish("thing", object())


def test_a_scrap_comes_back_with_its_unit_and_direction(shell: Shell, tmp_path: Path) -> None:
    shell.run("a")
    publish("p50", 1.5, unit="ms", better="lower", label="Median", interval=(1.4, 1.6))
    publish("text", "123")
    path = save(tmp_path, *shell.outputs)
    found = read_scraps(path)
    assert found["p50"].model_dump() == {
        "name": "p50",
        "value": 1.5,
        "unit": "ms",
        "better": "lower",
        "label": "Median",
        "interval": (1.4, 1.6),
    }
    assert found["text"].interval is None
    assert found["text"].value == "123"


def test_a_name_used_by_two_cells_is_refused(shell: Shell) -> None:
    shell.run("first", "id-1")
    publish("p50", 1)
    shell.run("second", "id-2")
    with pytest.raises(InputError, match="another cell"):
        publish("p50", 2)


def test_a_name_used_twice_in_one_cell_is_refused(shell: Shell) -> None:
    shell.run("cell", "id-1")
    publish("p50", 1)
    with pytest.raises(InputError, match="this cell"):
        publish("p50", 2)


@pytest.mark.parametrize("cell_id", ["id-1", None])
def test_a_cell_that_is_run_again_publishes_again(shell: Shell, cell_id: str | None) -> None:
    for _ in range(2):
        shell.run("publish", cell_id)
        publish("p50", 1)
        publish_outcome("pass", "Fine.")


def test_an_edited_cell_that_is_run_again_publishes_again(shell: Shell) -> None:
    shell.run("before", "id-1")
    publish("p50", 1)
    shell.run("after", "id-1")
    publish("p50", 2)


def test_the_outcome_keeps_verdict_finding_exit_code_and_record(
    shell: Shell, tmp_path: Path
) -> None:
    shell.run("a")
    publish_outcome("inconclusive", "Not\n sure.", record_path=Path("exp/bench.json"))
    found = {
        name: scrap.value for name, scrap in read_scraps(save(tmp_path, *shell.outputs)).items()
    }
    assert found == {
        "verdict": "inconclusive",
        "finding": "Not sure.",
        "exit_code": 4,
        "record": "exp/bench.json",
    }


def test_an_unknown_verdict_an_empty_finding_and_a_headline_name_are_refused() -> None:
    with pytest.raises(InputError, match="pass, fail, inconclusive"):
        publish_outcome("maybe", "x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one sentence"):
        publish_outcome("pass", " ")
    with pytest.raises(InputError, match="publish_outcome"):
        publish("verdict", "pass")


def test_scraps_of_plain_scrapbook_and_of_old_papermill_are_read(tmp_path: Path) -> None:
    payload = {"name": "top1", "data": 0.97, "encoder": "json", "version": 1}
    words = {"name": "note", "data": "fine", "encoder": "text", "version": 1}
    path = save(
        tmp_path,
        {"application/scrapbook.scrap.json+json": payload},
        {"application/scrapbook.scrap.text+json": words},
        {"application/papermill.record+json": {"old": 3}},
        {"application/scrapbook.scrap.json+json": "damaged"},
        {"text/plain": "no scrap"},
    )
    found = {name: scrap.value for name, scrap in read_scraps(path).items()}
    assert found == {"top1": 0.97, "note": "fine", "old": 3}


def test_what_we_publish_is_readable_by_scrapbook_itself(shell: Shell, tmp_path: Path) -> None:
    import scrapbook

    shell.run("a")
    publish("p50", 1.5, unit="ms")
    notebook = scrapbook.read_notebook(str(save(tmp_path, *shell.outputs)))
    assert notebook.scraps["p50"].data["value"] == 1.5


def test_a_broken_notebook_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(InputError, match="not a notebook"):
        read_scraps(tmp_path / "broken.ipynb")


def test_a_missing_notebook_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.ipynb"):
        read_scraps(tmp_path / "nothing.ipynb")
