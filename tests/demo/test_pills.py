from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opslib.demo.body import MATERIALS, TILE_PX, backdrop
from opslib.demo.photo import photograph, render_dataset
from opslib.demo.pills import KINDS, DemoSize, kind_names

ROOT = Path(__file__).parents[2]


def test_the_same_seed_class_split_and_number_give_the_same_bytes():
    first = photograph(KINDS[0], seed=1, split="train", index=3)
    assert first == photograph(KINDS[0], seed=1, split="train", index=3)


@pytest.mark.parametrize("change", [{"seed": 2}, {"split": "val"}, {"index": 4}])
def test_another_seed_split_or_number_gives_another_photo(change):
    asked = {"seed": 1, "split": "train", "index": 3}
    assert photograph(KINDS[0], **asked) != photograph(KINDS[0], **{**asked, **change})


def test_no_two_kinds_share_a_name_or_a_look():
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 24
    assert len({(k.shape, k.colours, k.imprint, k.score) for k in KINDS}) == len(KINDS)


def test_class_names_are_in_the_order_in_which_folders_are_listed():
    assert list(kind_names()) == sorted(kind.name for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_is_photographed_as_a_colour_jpeg_of_the_asked_size(kind):
    image = Image.open(io.BytesIO(photograph(kind, seed=1, split="val", index=0, size_px=160)))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (160, 160))
    assert np.asarray(image).std() > 8


@pytest.mark.parametrize("material", sorted(MATERIALS))
def test_every_backdrop_is_a_textured_tile(material):
    tile = backdrop(material)
    assert tile.shape == (TILE_PX, TILE_PX, 3)
    assert tile.dtype == np.uint8
    assert tile.std(axis=(0, 1)).min() > 1


def test_the_image_set_has_a_folder_per_class_and_split(tmp_path):
    size = DemoSize(kinds=KINDS[:2], train_per_class=2, val_per_class=1)
    assert render_dataset(tmp_path, size) == 6
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    assert found == sorted(
        f"{split}/{kind.name}/{split}-{index:04d}.jpg"
        for kind in KINDS[:2]
        for split, count in (("train", 2), ("val", 1))
        for index in range(count)
    )


def test_many_processes_write_the_same_images_as_one(tmp_path, monkeypatch):
    size = DemoSize(kinds=KINDS[:2], train_per_class=3, val_per_class=1)
    render_dataset(tmp_path / "one", size)
    monkeypatch.setattr("opslib.demo.photo._ALONE_BELOW", 0)
    seen = []
    render_dataset(tmp_path / "many", size, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)
    for path in (tmp_path / "one").rglob("*.jpg"):
        other = tmp_path / "many" / path.relative_to(tmp_path / "one")
        assert other.read_bytes() == path.read_bytes()


def test_the_contact_sheet_shows_all_classes_in_one_small_png(tmp_path):
    path = tmp_path / "pills.png"
    subprocess.run([sys.executable, ROOT / "tools/pills.py", path], check=True)
    assert Image.open(path).format == "PNG"
    assert path.stat().st_size < 300_000
