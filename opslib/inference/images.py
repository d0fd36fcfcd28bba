"""Image sets: the files a glob names, the unreadable ones set apart by name."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opslib.core.errors import InputError
from opslib.core.files import expand_user, sha256_tree
from opslib.inference.preprocess import decode

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class ImageSet:
    """Readable image files in a fixed order, one digest over them, and those left out and why."""

    pattern: str
    paths: tuple[Path, ...]
    sha256: str
    skipped: tuple[str, ...] = ()

    def take(self, count: int) -> list[str]:
        """Return `count` file names in order, starting over where the set is smaller."""
        names = [str(path) for path in self.paths]
        repeats = -(-count // len(names))
        return (names * repeats)[:count]


def find_images(pattern: str, *, limit: int, strict: bool = False) -> ImageSet:
    """Return up to `limit` readable images of a glob (`**` descends), spread evenly over it.

    A file that cannot be decoded is skipped and named, or refused where `strict`.

    Raises:
        InputError: nothing matches, nothing is readable, or a file is unreadable under `strict`.
    """
    try:
        expanded = str(expand_user(Path(pattern)))
    except ValueError as error:
        raise InputError(f"--inputs {pattern}: {error}") from error
    found = sorted(
        Path(name)
        for name in glob.iglob(expanded, recursive=True)  # noqa: PTH207 (a pattern may be absolute)
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and Path(name).is_file()
    )
    if not found:
        raise InputError(
            f"--inputs {pattern}: no image matches; expected files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    chosen = _spread(found, limit)
    readable, skipped = [], []
    for path in chosen:
        try:
            decode([path], 32)
        except InputError as error:
            if strict:
                raise
            skipped.append(str(error))
        else:
            readable.append(path)
    if not readable:
        raise InputError(
            f"--inputs {pattern}: none of {len(chosen)} images is readable: {skipped[0]}"
        )
    return ImageSet(pattern, tuple(readable), sha256_tree(readable), tuple(skipped))


def _spread(paths: Sequence[Path], limit: int) -> list[Path]:
    if len(paths) <= limit:
        return list(paths)
    return [paths[index * len(paths) // limit] for index in range(limit)]
