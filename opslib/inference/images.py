"""Image sets: the files a glob names; what is no image or unreadable is set apart and counted."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.files import expand_user, sha256_tree
from opslib.core.formatting import format_counts
from opslib.core.globs import find_matches
from opslib.inference.preprocess import decode

Split = Literal["val", "train"]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
NO_SUFFIX = "no suffix"


@dataclass(frozen=True)
class ImageFiles:
    """The image files that a glob names, by their suffix alone; `pattern` is the whole glob.

    `left_out` counts the other files by suffix; `problems` names the folders that cannot be read.
    """

    pattern: str
    folder: Path
    paths: tuple[Path, ...]
    left_out: dict[str, int]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageSet:
    """Readable image files in a fixed order, one digest over them, and those skipped and why.

    `folder` is the one that the glob is fixed to. `left_out` counts by suffix what the glob named
    besides: files that are no images, and images that cannot be read.
    """

    pattern: str
    folder: Path
    paths: tuple[Path, ...]
    sha256: str
    skipped: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    def take(self, count: int) -> list[str]:
        """Return `count` file names in order, starting over where the set is smaller."""
        names = [str(path) for path in self.paths]
        repeats = -(-count // len(names))
        return (names * repeats)[:count]

    def without(self, paths: Collection[Path], why: str | None = None) -> Self:
        """Return the set without some of its images; with a reason they count as left out."""
        gone = set(paths)
        rest = [path for path in self.paths if path not in gone]
        kept = replace(self, paths=tuple(rest), sha256=sha256_tree(rest))
        if why is None:
            return kept
        left_out = Counter(self.left_out) + Counter(count_suffixes(gone))
        return replace(kept, skipped=(*self.skipped, why), left_out=dict(sorted(left_out.items())))


def list_images(config: Config, split: Split) -> ImageFiles:
    """Return the image files that `images.val` or `images.train` names; by default every one at
    any depth of that folder of `paths.data_root`."""
    given = config.images.val if split == "val" else config.images.train
    return _list_files(given or f"{split}/**/*", config.data_root)


def pick_images(
    config: Config, split: Split, given: str | None, *, limit: int, strict: bool = False
) -> ImageSet:
    """Return the images of the glob `given`, else those of `list_images`; see `find_images`."""
    if given is not None:
        return find_images(given, limit=limit, strict=strict)
    return _read(list_images(config, split), f"images.{split}", limit, strict=strict)


def find_images(pattern: str, *, limit: int, strict: bool = False) -> ImageSet:
    """Return up to `limit` readable images of a glob (`**` descends), spread evenly over it. A file
    that cannot be decoded is skipped and named, or refused where `strict`; where none matches or is
    readable, an `InputError` names the option."""
    try:
        expanded = str(expand_user(Path(pattern))) if pattern else ""
    except ValueError as error:
        raise InputError(f"--inputs {pattern}: {error}") from error
    return _read(_list_files(expanded, Path(), pattern), "--inputs", limit, strict=strict)


def count_suffixes(paths: Iterable[Path]) -> dict[str, int]:
    """Return how many files have each suffix, in small letters and in order."""
    return dict(sorted(Counter(path.suffix.lower() or NO_SUFFIX for path in paths).items()))


def _list_files(pattern: str, root: Path, shown: str | None = None) -> ImageFiles:
    found = find_matches(pattern, root)
    images = tuple(path for path in found.files if path.suffix.lower() in IMAGE_SUFFIXES)
    others = count_suffixes(set(found.files).difference(images))
    whole = str(root / pattern) if shown is None else shown
    return ImageFiles(whole, found.folder, images, others, found.problems)


def _read(files: ImageFiles, named_by: str, limit: int, *, strict: bool) -> ImageSet:
    where = f"{named_by} {files.pattern}"
    if strict and files.problems:
        raise InputError(files.problems[0])
    if not files.paths:
        seen = [f"left out: {format_counts(files.left_out)}"] if files.left_out else []
        if files.folder == Path(files.pattern) and files.folder.is_dir():
            seen = [f"it is a folder; for all that lies in it: {files.folder}/**/*"]
        raise InputError(
            f"{where}: no image matches; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
            + "".join(f"; {one}" for one in (*seen, *files.problems[:1]))
        )
    count = min(limit, len(files.paths))
    chosen = [files.paths[index * len(files.paths) // count] for index in range(count)]
    readable, unreadable, skipped = list[Path](), list[Path](), list(files.problems)
    for path in chosen:
        try:
            _check_readable(path)
        except InputError as error:
            if strict:
                raise
            unreadable.append(path)
            skipped.append(str(error))
        else:
            readable.append(path)
    if not readable:
        raise InputError(f"{where}: none of {len(chosen)} images is readable: {skipped[-1]}")
    left_out = Counter(files.left_out) + Counter(count_suffixes(unreadable))
    return ImageSet(
        pattern=files.pattern,
        folder=files.folder,
        paths=tuple(readable),
        sha256=sha256_tree(readable),
        skipped=tuple(skipped),
        left_out=dict(sorted(left_out.items())),
    )


def _check_readable(path: Path) -> None:
    """Refuse what cannot be decoded; what is there and no file, such as a pipe, is not opened."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: cannot be read as an image: it is no regular file")
    decode([path], 32)
