"""The store of releases: what there is, what is pinned, and finding one by its name."""

import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from opslib.core.clock import ASK, is_ahead, parse_moment
from opslib.core.config import Config
from opslib.core.errors import InputError, ParameterError, storage_errors
from opslib.core.files import reveal_name
from opslib.core.formatting import utc_now
from opslib.core.locks import hold_lock
from opslib.core.records import Record
from opslib.ops.release.companions import (
    ARCHIVE_SUFFIX,
    checksum_path,
    manifest_path,
    read_checksum,
    read_copy,
    signature_path,
)
from opslib.ops.release.manifest import Manifest, ReleaseError

LOCK_NAME = ".release.lock"
PINS_NAME = "pins.json"
_NAME = re.compile(r"release-(\d{8}-\d{6})-([0-9a-f]{7,40}|nogit)")
_WRITTEN = re.compile(
    rf"{_NAME.pattern}(?:\.tar\.gz(?:\.sha256)?|\.manifest\.json(?:\.sig)?)?|pins\.json"
)


class Pins(Record):
    """The releases that pruning must leave alone, by name."""

    schema_name = "release-pins"

    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ListedRelease(ABC):
    """A release, wherever it lies; `problem` says what is wrong with it, as far as a look can tell.
    `is_ahead` is one that is dated after now; `sequence` is what its manifest says, where a copy of
    that lies beside it. It `has_signature` where one lies beside it, whoever made that."""

    name: str
    size_bytes: int
    released_at_utc: str | None
    git_sha: str | None
    pinned: bool = False
    problem: str | None = None
    is_ahead: bool = False
    sequence: int | None = None
    has_signature: bool = False

    @abstractmethod
    def manifest(self) -> Manifest:
        """Return its manifest: from the copy beside the archive, else from the archive itself.
        Raises ReleaseError: there is none that can be read."""

    @abstractmethod
    def read_copy(self) -> Manifest | None:
        """Return the manifest kept beside the archive, or None where it is missing or foreign."""


Listed = TypeVar("Listed", bound=ListedRelease)


@dataclass(frozen=True, kw_only=True)
class StoredRelease(ListedRelease):
    """An archive in a folder of this host."""

    path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """What belongs to the release and is there, the archive first."""
        companions = _companions(self.path)
        return (self.path, *(path for path in companions if path.exists()))

    def manifest(self) -> Manifest:
        from opslib.ops.release.verify import read_manifest

        return self.read_copy() or read_manifest(self.path)

    def read_copy(self) -> Manifest | None:
        return read_copy(self.path)


def sweep_leftovers(place: Path, *, folders: bool = False) -> None:
    """Remove what a killed run left: hidden files, and the companions of a hidden archive; or the
    hidden folders of restores. A checksum or manifest without any archive stays: it may be someone
    else's."""
    with storage_errors(f"clean {place}"):
        for path in place.glob(".*"):
            meant = reveal_name(path.name, "tmp") or ""
            if not _WRITTEN.fullmatch(meant) or path.is_symlink():
                continue
            if folders and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif not folders and path.is_file():
                archive = place / meant
                if archive.name.endswith(ARCHIVE_SUFFIX) and not archive.exists():
                    for companion in _companions(archive):
                        companion.unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def is_release_name(name: str) -> bool:
    """Return whether a name, without its ending, is one that a release has."""
    return _NAME.fullmatch(name) is not None


def read_name(name: str) -> tuple[datetime | None, str | None]:
    """Return what a release's name says: when it was made, None where that is no time, and from
    which commit."""
    match = _NAME.fullmatch(name)
    return (parse_moment(match[1]), match[2]) if match else (None, None)


def list_releases(
    config: Config, folder: Path | None = None, *, now: datetime | None = None
) -> tuple[StoredRelease, ...]:
    """Return the releases in the store, the newest first; what is broken has a `problem`. The order
    is that of their sequence numbers, which no clock decides; one without is put among them by its
    date. What is dated after now comes behind, what has no date last. `folder`: another folder of
    releases than `{exp_dir}/releases`; `now`: the current time by default."""
    place = folder or config.releases_dir
    try:
        pinned: frozenset[str] | None = frozenset(read_pins(config).names)
    except InputError:
        pinned = None
    moment = now or utc_now()
    return newest_first(
        _look_at(path, pinned, moment)
        for path in place.glob(f"*{ARCHIVE_SUFFIX}")
        if not path.name.startswith(".")
    )


def next_in_line(config: Config, folder: Path) -> tuple[int, str | None]:
    """Return the sequence number of the next release made in `folder`, and the `content_id` of
    the one before it; those in the store count too, since a release may be moved there."""
    there = list_releases(config, folder)
    numbers = [one.sequence or 0 for one in (*there, *list_releases(config))]
    before = max(there, key=lambda one: one.sequence or 0, default=None)  # the newest of equals
    copy = before.read_copy() if before is not None else None
    return max(numbers, default=0) + 1, copy.content_id if copy else None


def find_release(config: Config, name_or_path: str | Path | None = None) -> StoredRelease:
    """Return the release meant: a path, a name with or without `.tar.gz`, or the newest. Raises
    ParameterError: there is no such release; the message says which there are."""
    there = list_releases(config)
    if name_or_path is None or str(name_or_path) == "latest":
        if there:
            return there[0]
        make = "make one with `pillops release create`"
        raise ParameterError(f"{config.releases_dir}: no release; {make}")
    text = str(name_or_path)
    wanted = text.removesuffix(ARCHIVE_SUFFIX)
    for one in there:
        if one.name == wanted:
            return one
    path = Path(text).expanduser()
    if path.name.endswith(ARCHIVE_SUFFIX) and path.is_file():
        return _look_at(path.absolute(), frozenset(), utc_now())
    shown = ", ".join(one.name for one in there[:5]) + (", …" if len(there) > 5 else "")
    raise ParameterError(f"{text}: no such release; in {config.releases_dir}: {shown or 'none'}")


def read_pins(config: Config) -> Pins:
    """Return which releases are pinned. Raises InputError: the list is there but cannot be read:
    what is pinned is not known."""
    path = config.releases_dir / PINS_NAME
    return Pins.read(path) if os.path.lexists(path) else Pins()


def pin_release(config: Config, name: str, *, pinned: bool = True) -> StoredRelease:
    """Keep a release from being pruned, or let it be pruned again, and return it. Raises
    ParameterError: it is not in the store; InputError: the list of pins cannot be read."""
    with hold_lock(config.releases_dir / LOCK_NAME, "pinning a release", wait_s=10):
        release = find_release(config, name)
        if release.path.parent != config.releases_dir:
            raise ParameterError(f"{name}: not in {config.releases_dir}; what is there is pinned")
        others = {one for one in read_pins(config).names if one != release.name}
        names = sorted(others | ({release.name} if pinned else set()))
        Pins(names=tuple(names)).write(config.releases_dir / PINS_NAME)
    return find_release(config, release.name)


def newest_first(found: Iterable[Listed]) -> tuple[Listed, ...]:
    """Return the releases of one place in the order that `list_releases` gives them. One counts as
    no older than those of lower sequence: its clock may have been behind."""
    releases = list(found)
    dates: dict[str, str] = {}
    latest = ""
    for one in sorted(releases, key=lambda one: (one.sequence or 0, one.released_at_utc or "")):
        own = one.released_at_utc or ""
        if one.sequence is not None and not one.is_ahead:
            own = latest = max(latest, own)
        dates[one.name] = own

    def rank(one: Listed) -> tuple[int, str, int, str]:
        standing = 0 if one.released_at_utc is None else 1 if one.is_ahead else 2
        return standing, dates[one.name], one.sequence or 0, one.name

    return tuple(sorted(releases, key=rank, reverse=True))


def _look_at(path: Path, pinned: frozenset[str] | None, now: datetime) -> StoredRelease:
    """What can be said of an archive without reading it."""
    name = path.name.removesuffix(ARCHIVE_SUFFIX)
    moment, git_sha = read_name(name)
    copy = read_copy(path) if moment is not None else None
    ahead = is_ahead(moment, now)
    size = 0
    try:
        size = path.stat().st_size if path.is_file() else 0
        problem = _find_problem(path, size, named=moment is not None)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    if problem is None and copy is None and os.path.lexists(manifest_path(path)):
        problem = f"{manifest_path(path).name} is no copy of its manifest"
    if problem is None and ahead:
        problem = f"dated after now: {ASK}"
    if problem is None and pinned is None:
        problem = f"{PINS_NAME} cannot be read: it counts as pinned"
    return StoredRelease(
        path=path,
        name=name,
        size_bytes=size,
        released_at_utc=moment.isoformat(timespec="seconds") if moment else None,
        git_sha=git_sha,
        pinned=pinned is None or name in pinned,
        problem=problem,
        is_ahead=ahead,
        sequence=copy.sequence if copy is not None else None,
        has_signature=os.path.lexists(signature_path(path)),
    )


def _companions(archive: Path) -> tuple[Path, ...]:
    return (checksum_path(archive), manifest_path(archive), signature_path(archive))


def _find_problem(path: Path, size: int, *, named: bool) -> str | None:
    if not path.is_file():
        return "no regular file"
    if not named:
        return "not named as a release is: release-<UTC>-<sha>.tar.gz"
    if not size:
        return "empty"
    if not os.path.lexists(checksum_path(path)):
        return f"{checksum_path(path).name} is missing"
    try:
        read_checksum(path)
    except ReleaseError as error:
        return str(error).removeprefix(f"{path.parent}/")
    return None
