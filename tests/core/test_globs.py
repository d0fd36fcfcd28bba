"""A glob names the same files as the shell's would, each once, and the walk always ends."""

import os
from pathlib import Path

import pytest

from opslib.core.globs import find_matches


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path, pattern: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_matches(pattern, root).files]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*", ["a/b/c/3.png", "a/b/2.png", "a/1.JPG", "top.jpg"]),
        ("**/*.png", ["a/b/c/3.png", "a/b/2.png"]),
        ("a/**", ["a/b/c/3.png", "a/b/2.png", "a/1.JPG"]),
        ("*/*.JPG", ["a/1.JPG"]),
        ("*/b/**/*.png", ["a/b/c/3.png", "a/b/2.png"]),
        ("a/[!x]/?.png", ["a/b/2.png"]),
        ("a/1.JPG", ["a/1.JPG"]),
        ("a", []),
        ("", []),
        ("none/*", []),
        ("a/.*", ["a/.hidden.png"]),
        ("\0/*", []),
        ("x" * 5000, []),
    ],
)
def test_a_glob_names_what_a_shell_would(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    write(tmp_path, "top.jpg", "a/1.JPG", "a/b/2.png", "a/b/c/3.png", "a/.hidden.png", ".x/4.png")
    assert sorted(names(tmp_path, pattern)) == sorted(expected)


def test_brackets_in_the_folder_it_is_read_from_are_part_of_its_name(tmp_path: Path) -> None:
    root = tmp_path / "images[1]"
    write(root, "val/1.png")
    assert names(root, "val/**/*") == ["val/1.png"]


def test_an_absolute_glob_is_read_from_the_top(tmp_path: Path) -> None:
    write(tmp_path, "val/1.png")
    found = find_matches(str(tmp_path / "v*/*"), Path("/nowhere"))
    assert found.files == (tmp_path / "val/1.png",)
    assert found.folder == tmp_path


def test_links_that_lead_round_in_circles_are_followed_once(tmp_path: Path) -> None:
    for name in "abcdefgh":
        write(tmp_path, f"{name}/{name}.png")
    for one in "abcdefgh":
        for other in "abcdefgh":
            (tmp_path / one / f"to-{other}").symlink_to(tmp_path / other)
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to("self")
    assert names(tmp_path, "**/*.png") == [f"{name}/{name}.png" for name in "abcdefgh"]


def test_a_folder_elsewhere_is_reached_through_a_link(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "K-1/1.png")
    (tmp_path / "images/val").mkdir(parents=True)
    (tmp_path / "images/val/single").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "images", "val/**/*") == ["val/single/K-1/1.png"]


def test_a_folder_that_may_not_be_looked_into_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "open/1.png", "shut/2.png")
    really = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "shut":
            raise PermissionError(13, "Permission denied")
        return really(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_matches("**/*", tmp_path)
    assert found.files == (tmp_path / "open/1.png",)
    assert found.problems == (f"{tmp_path / 'shut'}: cannot be looked into: Permission denied",)
