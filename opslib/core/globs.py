"""Files that a glob names, found by a walk that enters each folder once."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

_MAGIC = re.compile(r"[*?\[]")
_ANY_DEPTH = "**"


@dataclass(frozen=True)
class Matches:
    """What a glob names, sorted, folders left out; the folder that all of it lies in, and the
    folders that could not be looked into, with the reason."""

    folder: Path
    files: tuple[Path, ...]
    problems: tuple[str, ...] = ()


def find_matches(pattern: str, root: Path) -> Matches:
    """Return what `pattern` names; a relative one is read from `root`, whose name is no pattern.

    `**` stands for any number of folders. Links to folders are followed, but a folder with two
    names is entered once, by its own name where it has one here, so that no circle is. Names that
    begin with a dot are found only by a pattern that does.
    """
    folder, parts = _split(pattern, root)
    if not parts:
        return Matches(folder, (folder,) if _is_there(folder) and not folder.is_dir() else ())
    files: list[Path] = []
    problems: list[str] = []
    entered: set[tuple[int, int, frozenset[int]]] = set()
    folders, links = [(folder, frozenset({0}))], list[tuple[Path, frozenset[int]]]()
    while folders or links:
        path, at = folders.pop() if folders else links.pop(0)
        try:
            known = path.stat()
            key = (known.st_dev, known.st_ino, at)
            if key in entered:
                continue
            entered.add(key)
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
        except OSError as error:
            problems.append(f"{path}: cannot be looked into: {error.strerror}")
            continue
        at = at | {one + 1 for one in at if parts[one] == _ANY_DEPTH}
        for entry in entries:
            named = {one + 1 for one in at if _names(parts[one], entry.name)}
            if not _is_folder(entry):
                if len(parts) in named:
                    files.append(path / entry.name)
                continue
            if not entry.name.startswith("."):
                named |= {one for one in at if parts[one] == _ANY_DEPTH}
            if deeper := frozenset(named - {len(parts)}):
                (links if entry.is_symlink() else folders).append((path / entry.name, deeper))
    return Matches(folder, tuple(sorted(set(files))), tuple(problems))


def _split(pattern: str, root: Path) -> tuple[Path, list[str]]:
    """The folder before the first part that is a pattern, and the parts from there on."""
    parts = list(Path(pattern).parts)
    folder = Path(parts.pop(0)) if Path(pattern).is_absolute() else root
    while parts and not _MAGIC.search(parts[0]):
        folder /= parts.pop(0)
    if parts and parts[-1] == _ANY_DEPTH:
        parts.append("*")
    return folder, parts


def _names(part: str, name: str) -> bool:
    if part == _ANY_DEPTH or (name.startswith(".") and not part.startswith(".")):
        return False
    return _compile(part).match(name) is not None


@lru_cache(maxsize=64)
def _compile(part: str) -> re.Pattern[str]:
    return re.compile(translate(part))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link that leads in a circle
        return entry.is_dir()
    return False


def _is_there(path: Path) -> bool:
    with suppress(ValueError):
        return os.path.lexists(path)
    return False
