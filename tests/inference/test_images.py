from pathlib import Path

import pytest

from opslib.core.errors import InputError
from opslib.inference.images import find_images
from tests.models import write_images


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
