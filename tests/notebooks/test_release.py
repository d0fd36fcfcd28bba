"""H-2: the release notebook by plain papermill, on an experiment of its own; it tells the truth."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from opslib.core.cards import ModelCard, card_path
from opslib.ops.release.record import read_proofs
from opslib.ops.release.store import list_releases
from opslib.telling.scraps import read_scraps
from tests.notebooks.test_notebooks import papermill
from tests.ops.release.restoring import flip_byte, make_releasable, release
from tests.serving.conftest import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_releasable(tmp_path)


def run(place: Place, *parameters: str) -> dict[str, object]:
    """Run the notebook and return its scraps by name."""
    answer = papermill(place.config_path.parent, "04_release", *parameters)
    assert answer.returncode == 0, answer.stderr
    scraps = read_scraps(place.config_path.parent / "out.ipynb")
    return {name: scrap.value for name, scrap in scraps.items()}


def shown(place: Place) -> str:
    """All that the executed notebook shows, tags left out."""
    notebook = nbformat.read(place.config_path.parent / "out.ipynb", as_version=4)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    html = " ".join(out.get("data", {}).get("text/html", "") for out in outputs)
    return re.sub(r"<[^>]+>", " ", html)


def test_it_makes_a_release_copies_it_proves_it_and_one_more_by_rota(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    older = release(place.config, monkeypatch, -1, onnx=place.first, only=True)
    before = release(place.config, monkeypatch, onnx=place.first, only=True)
    never = release(place.config, monkeypatch, 1, onnx=place.first, only=True)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    scraps = run(place, "-p", "copy_to", str(tmp_path / "second"))
    made = list_releases(place.config)[0]
    assert scraps["verdict"] == "pass", scraps["finding"]
    assert made.name in str(scraps["finding"])
    assert [one.release for one in read_proofs(place.config)] == [made.name, never.name]
    assert (scraps["exit_code"], scraps["releases"], scraps["unproved"]) == (0, 4, 2)
    record = json.loads(Path(str(scraps["record"])).read_text())
    assert record["schema"] == "release-rota/1"
    assert (tmp_path / "second" / made.path.name).is_file()
    text = shown(place)
    assert f"Never proved: {before.name}, {older.name}" in text
    assert f"{made.name} against {never.name}" in text
    assert "export/model-b.onnx.data" in text


def test_a_release_that_does_not_restore_fails_the_report_and_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = release(place.config, monkeypatch)
    flip_byte(broken.path)
    scraps = run(place, "-p", "release", broken.name)
    assert (scraps["verdict"], scraps["exit_code"]) == ("fail", 3)
    assert str(scraps["finding"]).startswith(f"{broken.name} does not restore: verify: ")
    assert (scraps["tested"], scraps["unproved"]) == (1, 1)
    assert "restore_test_s" not in scraps
    assert "Do not count on it" in shown(place)


def test_without_golden_images_the_answer_is_open(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = card_path(place.second)
    ModelCard.read(path).model_copy(update={"golden": ()}).write(path)
    (place.export / "export_report.json").unlink()
    asked = release(place.config, monkeypatch)
    scraps = run(place, "-p", "release", asked.name)
    assert (scraps["verdict"], scraps["exit_code"]) == ("inconclusive", 4)
    assert "no golden images" in str(scraps["finding"])


def test_a_dry_run_makes_and_tests_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    there = release(place.config, monkeypatch)
    scraps = run(place, "-p", "dry", "True")
    assert scraps["verdict"] == "inconclusive"
    assert there.name in str(scraps["finding"])
    assert list_releases(place.config) == (there,)
    assert read_proofs(place.config) == ()
    assert not place.config.restore_dir.exists()


def test_a_dry_run_of_an_empty_store_says_so(place: Place) -> None:
    scraps = run(place, "-p", "dry", "True")
    assert "nothing was made" in str(scraps["finding"])
    assert scraps["releases"] == 0
