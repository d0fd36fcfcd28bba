"""The store of releases: what there is, what is pinned, and finding one by its name."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from opslib.core.config import Config
from opslib.core.errors import InputError, ParameterError
from opslib.core.files import reveal_name, write_text_atomic
from opslib.core.formatting import STAMP_FORMAT
from opslib.core.locks import hold_lock
from opslib.core.records import Record
from opslib.release.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    ReleaseError,
    compute_content_id,
    parse_manifest,
)

ARCHIVE_SUFFIX = ".tar.gz"
MANIFEST_SUFFIX = ".manifest.json"
LOCK_NAME = ".release.lock"
PINS_NAME = "pins.json"
_NAME = re.compile(r"release-(\d{8}-\d{6})-([0-9a-f]{7,40}|nogit)")
_WRITTEN = re.compile(
    rf"{_NAME.pattern}(?:\.tar\.gz|\.tar\.gz\.sha256|\.manifest\.json)?|pins\.json"
)


class Pins(Record):
    """The releases that pruning must leave alone, by name."""

    schema_name = "release-pins"

    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredRelease:
    """An archive in the store; `problem` says what is wrong with it, as far as a look can tell."""

    path: Path
    name: str
    size_bytes: int
    released_at_utc: str | None
    git_sha: str | None
    pinned: bool = False
    problem: str | None = field(default=None)

    @property
    def checksum_path(self) -> Path:
        """The file that `sha256sum -c` reads."""
        return checksum_path(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """What belongs to the release and is there, the archive first."""
        companions = (self.checksum_path, manifest_path(self.path))
        return (self.path, *(path for path in companions if path.exists()))

    def manifest(self) -> Manifest:
        """Return its manifest: from the copy beside the archive, else from the archive itself.

        Raises:
            ReleaseError: there is none that can be read.
        """
        return self.read_copy() or self._read_archive()

    def read_copy(self) -> Manifest | None:
        """Return the manifest kept beside the archive, or None where it is missing or foreign."""
        try:
            copy = parse_manifest(read_companion(manifest_path(self.path)), self.name)
        except (OSError, ReleaseError):
            return None
        own = self.name.startswith(f"release-{release_stamp(copy.released_at_utc)}-")
        return copy if own and copy.content_id == compute_content_id(copy.files) else None

    def _read_archive(self) -> Manifest:
        from opslib.release.verify import read_manifest

        return read_manifest(self.path)


def checksum_path(archive: Path) -> Path:
    """Return where the archive's checksum lies: `….tar.gz.sha256`."""
    return archive.with_name(f"{archive.name}.sha256")


def manifest_path(archive: Path) -> Path:
    """Return where the copy of the archive's manifest lies: `….manifest.json`."""
    return archive.with_name(f"{archive.name.removesuffix(ARCHIVE_SUFFIX)}{MANIFEST_SUFFIX}")


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read, unbuffered; a pipe, which would be waited for, is refused.

    Raises:
        OSError: it is no regular file, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return os.fdopen(descriptor, "rb", buffering=0)


def read_companion(path: Path) -> bytes:
    """Return the bytes of what lies beside an archive.

    Raises:
        OSError: it is larger, no regular file, or cannot be read.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_MANIFEST_BYTES:
            raise OSError(errno.EFBIG, "too large", str(path))
        return file.read()


def is_leftover(name: str) -> bool:
    """Return whether a hidden name is that of a file or folder that was never finished."""
    meant = reveal_name(name, "tmp")
    return meant is not None and _WRITTEN.fullmatch(meant) is not None


def is_release_name(name: str) -> bool:
    """Return whether a name, without its ending, is one that a release has."""
    return _NAME.fullmatch(name) is not None


def release_stamp(released_at_utc: str) -> str:
    """Return the time as it stands in a release's name, or the text itself where it is no time."""
    try:
        return datetime.fromisoformat(released_at_utc).astimezone(UTC).strftime(STAMP_FORMAT)
    except (ValueError, OverflowError):
        return released_at_utc


def list_releases(config: Config, folder: Path | None = None) -> tuple[StoredRelease, ...]:
    """Return the releases in the store, the newest first; what is broken has a `problem`.

    Args:
        folder: another folder of releases than `{exp_dir}/releases`.
    """
    place = folder or config.releases_dir
    try:
        pinned: frozenset[str] | None = frozenset(read_pins(config).names)
    except InputError:
        pinned = None
    found = [
        _look_at(path, pinned)
        for path in place.glob(f"*{ARCHIVE_SUFFIX}")
        if not path.name.startswith(".")
    ]
    return tuple(sorted(found, key=lambda one: (one.released_at_utc or "", one.name), reverse=True))


def find_release(config: Config, name_or_path: str | Path | None = None) -> StoredRelease:
    """Return the release meant: a path, a name with or without `.tar.gz`, or the newest.

    Raises:
        ParameterError: there is no such release; the message says which there are.
    """
    there = list_releases(config)
    if name_or_path is None or str(name_or_path) == "latest":
        if there:
            return there[0]
        make = "make one with `pillops release create`"
        raise ParameterError(f"{config.releases_dir}: no release; {make}")
    text = str(name_or_path)
    wanted = text.removesuffix(ARCHIVE_SUFFIX)
    named = [one for one in there if one.name == wanted]
    if named:
        return named[0]
    path = Path(text).expanduser()
    if path.name.endswith(ARCHIVE_SUFFIX) and path.is_file():
        return _look_at(path.absolute(), frozenset())
    shown = ", ".join(one.name for one in there[:5]) + (", …" if len(there) > 5 else "")
    raise ParameterError(f"{text}: no such release; in {config.releases_dir}: {shown or 'none'}")


def pin_release(config: Config, name: str) -> StoredRelease:
    """Keep a release from being pruned and return it.

    Raises:
        ParameterError: it is not in the store.
        InputError: the list of pins cannot be read.
    """
    return _set_pin(config, name, pinned=True)


def unpin_release(config: Config, name: str) -> StoredRelease:
    """Let a release be pruned again and return it; see `pin_release`."""
    return _set_pin(config, name, pinned=False)


def read_pins(config: Config) -> Pins:
    """Return which releases are pinned.

    Raises:
        InputError: the list is there but cannot be read: what is pinned is not known.
    """
    path = config.releases_dir / PINS_NAME
    return Pins.read(path) if path.exists() else Pins()


def _set_pin(config: Config, name: str, *, pinned: bool) -> StoredRelease:
    with hold_lock(config.releases_dir / LOCK_NAME, "pinning a release", wait_s=10):
        release = find_release(config, name)
        if release.path.parent != config.releases_dir:
            raise ParameterError(f"{name}: not in {config.releases_dir}; what is there is pinned")
        others = {one for one in read_pins(config).names if one != release.name}
        names = sorted(others | ({release.name} if pinned else set()))
        text = Pins(names=tuple(names)).to_json()
        write_text_atomic(config.releases_dir / PINS_NAME, text)
    return find_release(config, release.name)


def _look_at(path: Path, pinned: frozenset[str] | None) -> StoredRelease:
    """What can be said of an archive without reading it."""
    name = path.name.removesuffix(ARCHIVE_SUFFIX)
    match = _NAME.fullmatch(name)
    moment = _parse_stamp(match[1]) if match else None
    try:
        size = path.stat().st_size if path.is_file() else 0
        problem = _find_problem(path, size, named=moment is not None)
    except OSError as error:
        size, problem = 0, f"cannot be read: {error.strerror}"
    if pinned is None and problem is None:
        problem = f"{PINS_NAME} cannot be read: it counts as pinned"
    return StoredRelease(
        path=path,
        name=name,
        size_bytes=size,
        released_at_utc=moment.isoformat(timespec="seconds") if moment else None,
        git_sha=match[2] if match else None,
        pinned=pinned is None or name in pinned,
        problem=problem,
    )


def _find_problem(path: Path, size: int, *, named: bool) -> str | None:
    if not path.is_file():
        return "no regular file"
    if not named:
        return "not named as a release is: release-<UTC>-<sha>.tar.gz"
    if not size:
        return "empty"
    if not checksum_path(path).is_file():
        return f"{checksum_path(path).name} is missing"
    return None


def _parse_stamp(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, STAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
