import os
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.errors import InputError
from opslib.inference.images import find_images, pick_images
from tests.models import write_config, write_images


def test_a_glob_descends_and_only_images_are_taken(tmp_path: Path) -> None:
    write_images(tmp_path / "a/b", 2)
    write_images(tmp_path / "c", 1)
    (tmp_path / "c/notes.txt").write_text("no image")
    found = find_images(str(tmp_path / "**/*"), limit=10)
    assert len(found.paths) == 3
    assert found.skipped == ()


def test_an_empty_glob_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--inputs .*none/\*\.jpg: no image matches"):
        find_images(str(tmp_path / "none/*.jpg"), limit=10)


def test_an_unreadable_image_is_skipped_and_named_or_refused(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no")
    found = find_images(str(tmp_path / "*.jpg"), limit=10)
    assert len(found.paths) == 2
    assert "bad.jpg" in found.skipped[0]
    with pytest.raises(InputError, match=r"bad\.jpg"):
        find_images(str(tmp_path / "*.jpg"), limit=10, strict=True)


def test_only_unreadable_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"none of 1 images is readable: .*bad\.jpg"):
        find_images(str(tmp_path / "*.jpg"), limit=10)


def test_a_limit_spreads_over_the_whole_set(tmp_path: Path) -> None:
    for name in "abcd":
        write_images(tmp_path / name, 5)
    found = find_images(str(tmp_path / "**/*.jpg"), limit=4)
    assert [path.parent.name for path in found.paths] == ["a", "b", "c", "d"]
    assert len(found.take(10)) == 10


def test_the_digest_changes_with_one_byte(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 2)
    before = find_images(str(tmp_path / "*.jpg"), limit=9).sha256
    paths[0].write_bytes(paths[0].read_bytes() + b"\0")
    assert find_images(str(tmp_path / "*.jpg"), limit=9).sha256 != before


def test_what_is_no_image_or_cannot_be_read_is_counted_by_suffix(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    for name in ("a.JSON", "b.json", "README", "broken.PNG", "gone.png"):
        (tmp_path / name).write_text("no image")
    (tmp_path / "gone.png").unlink()
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    found = find_images(str(tmp_path / "**/*"), limit=10)
    assert found.left_out == {".json": 2, ".png": 2, "no suffix": 1}
    assert [Path(line.partition(":")[0]).name for line in found.skipped] == [
        "broken.PNG",
        "gone.png",
    ]


def test_a_folder_in_place_of_a_glob_is_told_how_to_name_what_lies_in_it(tmp_path: Path) -> None:
    write_images(tmp_path / "val", 1)
    with pytest.raises(InputError, match=r"it is a folder; .*/val/\*\*/\*$"):
        find_images(str(tmp_path / "val"), limit=9)


def test_a_pipe_named_like_an_image_is_not_waited_for(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe.png")
    found = find_images(str(tmp_path / "*"), limit=10)
    assert "pipe.png: cannot be read as an image: it is no regular file" in found.skipped[0]


def test_a_key_names_the_images_below_the_data_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "images/val/a", 1)
    write_images(tmp_path / "images/held/b", 2)
    config = load_config(write_config(tmp_path, "images: {val: 'held/**/*.jpg'}\n"), {})
    assert len(pick_images(config, "val", None, limit=9).paths) == 2
    given = pick_images(config, "val", str(tmp_path / "images/val/*/*"), limit=9)
    assert len(given.paths) == 1


def test_no_image_under_the_default_names_the_key_and_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "images/train/K-1").mkdir(parents=True)
    (tmp_path / "images/train/K-1/labels.csv").touch()
    config = load_config(write_config(tmp_path), {})
    with pytest.raises(InputError) as caught:
        pick_images(config, "train", None, limit=9)
    message = str(caught.value)
    assert message.startswith(f"images.train {tmp_path}/images/train/**/*: no image matches")
    assert message.endswith("; left out: 1 .csv")
