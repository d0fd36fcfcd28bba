"""Ways in which a file of evidence is there and cannot be read; no test runs as another user, so
that lacking permission is tried only where it holds for this one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _spoil_text(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"', b'"\xff', 1))


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone.json")


def _lead_in_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


UNREADABLE: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": _cut,
    "no_text": _spoil_text,
    "no_object": lambda path: path.write_text("[1, 2]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "folder": _become_folder,
    "dangling": _dangle,
    "circle": _lead_in_a_circle,
}
if os.geteuid() != 0:  # root may read every file
    UNREADABLE["private"] = lambda path: path.chmod(0)


def clear(path: Path) -> None:
    """Remove what a damage made of `path`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
