"""What lies beside an archive: its checksum, a copy of its manifest, and the signature of that."""

import errno
import os
import re
import stat
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from opslib.core.formatting import stamp
from opslib.ops.release.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    ReleaseError,
    compute_content_id,
    parse_manifest,
)

ARCHIVE_SUFFIX = ".tar.gz"
CHECKSUM_SUFFIX = ".sha256"
MANIFEST_SUFFIX = ".manifest.json"
SIGNATURE_SUFFIX = ".sig"
_CHECKSUM = re.compile(rb"([0-9a-f]{64})  (.+)\n")
_REMEMBERED = 1024


def checksum_name(archive_name: str) -> str:
    """Return the name of an archive's checksum: `….tar.gz.sha256`."""
    return f"{archive_name}{CHECKSUM_SUFFIX}"


def checksum_size(archive_name: str) -> int:
    """Return how many bytes an archive's checksum has."""
    return 64 + len("  \n") + len(os.fsencode(archive_name))


def manifest_name(archive_name: str) -> str:
    """Return the name of the copy of an archive's manifest: `….manifest.json`."""
    return f"{archive_name.removesuffix(ARCHIVE_SUFFIX)}{MANIFEST_SUFFIX}"


def signature_name(archive_name: str) -> str:
    """Return the name of the signature of an archive's manifest: `….manifest.json.sig`."""
    return f"{manifest_name(archive_name)}{SIGNATURE_SUFFIX}"


def checksum_path(archive: Path) -> Path:
    """Return where the archive's checksum lies."""
    return archive.with_name(checksum_name(archive.name))


def manifest_path(archive: Path) -> Path:
    """Return where the copy of the archive's manifest lies."""
    return archive.with_name(manifest_name(archive.name))


def signature_path(archive: Path) -> Path:
    """Return where the signature of the archive's manifest lies, if it has one."""
    return archive.with_name(signature_name(archive.name))


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read, unbuffered; a pipe, which would be waited for, is refused. Raises
    OSError: it is no regular file, or cannot be opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return os.fdopen(descriptor, "rb", buffering=0)


def read_companion(path: Path) -> bytes:
    """Return the bytes of what lies beside an archive. Raises OSError: it is larger than it may be,
    no regular file, or cannot be read."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_MANIFEST_BYTES:
            raise OSError(errno.EFBIG, "too large", str(path))
        return file.read()


def read_checksum(archive: Path) -> str:
    """Return the digest that the file beside the archive states. Raises ReleaseError: it is
    missing, names another archive, or is not as `sha256sum` writes it."""
    path = checksum_path(archive)
    try:
        data = read_companion(path)
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_checksum(data, archive.name)


def parse_checksum(data: bytes, archive_name: str) -> str:
    """Return the digest that the bytes of a checksum state. Raises ReleaseError: see
    `read_checksum`."""
    match, name = _CHECKSUM.fullmatch(data), checksum_name(archive_name)
    if match is None:
        wrong = "not the one line that sha256sum writes" if data else "empty"
        raise ReleaseError(f"{name}: {wrong}")
    if match[2] != os.fsencode(archive_name):
        raise ReleaseError(f"{name}: is about {match[2].decode('utf-8', 'replace')!r}")
    return match[1].decode()


def release_stamp(released_at_utc: str) -> str:
    """Return the time as it stands in a release's name, or the text itself where it is no time."""
    try:
        return stamp(datetime.fromisoformat(released_at_utc))
    except (ValueError, OverflowError):
        return released_at_utc


def read_copy(archive: Path) -> Manifest | None:
    """Return the manifest kept beside an archive, or None where it is missing or foreign."""
    path = manifest_path(archive)
    try:
        facts = path.stat()
        return _parse_copy(path, (facts.st_mtime_ns, facts.st_size, facts.st_ino))
    except (OSError, ReleaseError):
        return None


@lru_cache(maxsize=_REMEMBERED)
def _parse_copy(path: Path, _facts: tuple[int, ...]) -> Manifest | None:
    """The copy, read once while its facts stay: the store is listed again at each deletion."""
    return parse_copy(read_companion(path), path.name.removesuffix(MANIFEST_SUFFIX))


def parse_copy(data: bytes, name: str) -> Manifest | None:
    """Return the manifest that lies beside the archive of the release `name`, or None where it is
    another's. Raises ReleaseError: it is no manifest."""
    copy = parse_manifest(data, name)
    own = name.startswith(f"release-{release_stamp(copy.released_at_utc)}-")
    return copy if own and copy.content_id == compute_content_id(copy.files) else None
