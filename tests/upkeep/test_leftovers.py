"""H-1: what writers that died left behind goes after a day; what may be a person's stays."""

from __future__ import annotations

import os

import pytest

from opslib.core.files import open_atomic
from tests.upkeep.places import Place, set_age


@pytest.mark.parametrize("folder", ["export", "checkpoints", "reports", "releases", "quantized/a"])
def test_a_half_written_file_goes_after_a_day(place: Place, folder: str) -> None:
    old = place.write(f"{folder}/.model-a.onnx.k3v9_abq", days=1.1)
    young = place.write(f"{folder}/.model-b.onnx.k3v9_abq", days=0.9)
    place.run()
    assert not old.exists()
    assert young.exists()


def test_what_our_own_writer_leaves_when_it_is_killed_is_known(place: Place) -> None:
    found = 0
    for number in range(20):
        with open_atomic(place.exp / "export" / f"model-{number}.json") as file:
            path = next((place.exp / "export").glob(f".model-{number}.json.*"))
            os.link(path, path.with_name(f"{path.name}x"))  # keep it past the end of the block
            path.with_name(f"{path.name}x").rename(place.exp / path.name)
            file.write(b"{}")
        found += 1
        set_age(place.exp / path.name, 3)
    place.run()
    left = [path.name for path in place.exp.glob(".model-*")]
    assert found == 20
    assert all(name.rpartition(".")[2].isalpha() for name in left), "letters alone may be a word"


@pytest.mark.parametrize(
    "name",
    [
        ".model.json.metadata",
        ".env",
        ".gitkeep",
        "model.onnx.k3v9_abq",
        ".x.k3v9_abq",
        ".demo.json",
    ],
)
def test_what_may_be_a_persons_stays(place: Place, name: str) -> None:
    path = place.write(f"export/{name}", days=400)
    place.run()
    assert path.exists()


def test_a_file_that_is_written_still_stays(place: Place) -> None:
    path = place.write("export/.model-a.onnx.k3v9_abq", days=3)
    with path.open("ab"):
        set_age(path, 3)
        assert not place.targets()


def test_a_half_filled_folder_goes_when_all_in_it_is_old(place: Place) -> None:
    for stem, days in (("a", 3.0), ("b", 0.1)):
        folder = f"releases/restored/.release-20261101-000000-abc1234.k3v9_ab{stem}"
        place.write(f"{folder}/export/model.onnx", days=days)
        set_age(place.exp / folder / "export", 3)
        set_age(place.exp / folder, 3)
    place.run()
    left = [path.name for path in (place.exp / "releases" / "restored").iterdir()]
    assert left == [".release-20261101-000000-abc1234.k3v9_abb"]


def test_bad_models_of_a_drill_whose_keeper_died_too_are_removed(place: Place) -> None:
    place.write("export/.drill-0a1b2c3d/bad.onnx", days=3)
    set_age(place.exp / "export" / ".drill-0a1b2c3d", 3)
    place.run()
    assert not (place.exp / "export" / ".drill-0a1b2c3d").exists()


def test_a_note_of_a_rotation_goes_even_where_its_random_letters_may_be_a_word(
    place: Place,
) -> None:
    note = place.write("logs/.api.out.rotating.json.metadata", days=3)
    place.run()
    assert not note.exists()
