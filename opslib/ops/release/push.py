"""Sending a release into a store: seen there when all of it is, and held against its digest.

The archive goes first, the copy of its manifest and its signature next, its checksum last, so that
a push that is cut off, killed or refused leaves nothing that can be seen; the next one goes on with
what arrived.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError, StorageError
from opslib.core.locks import hold_lock
from opslib.core.store import PART_BYTES, Entry, Store, open_store
from opslib.core.store_address import is_address
from opslib.ops.release.companions import (
    checksum_name,
    manifest_name,
    parse_checksum,
    read_checksum,
    signature_name,
)
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.remote import has_checksum
from opslib.ops.release.restore import copy_release
from opslib.ops.release.sources import ArchiveFile

LOCK_NAME = ".push.lock"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SecondCopy:
    """A copy of a release that was made or found: where, how its bytes were held against the digest
    of the release, and how long all of it took."""

    where: str
    checked: str
    took_s: float


def check_place(where: str) -> str:
    """Return `where`, a folder or an address that a copy may go to. Raises ParameterError,
    UnavailableError: it is an address that `open_store` refuses."""
    if is_address(where):
        open_store(where)
    return where


def put_copy(archive: Path, where: str, *, config: Config) -> SecondCopy:
    """Put a verified second copy of a release into a folder, or into a store where `where` is an
    address. Raises what `push_release` and `restore.copy_release` raise."""
    if is_address(where):
        return push_release(archive, open_store(where), config=config)
    started = time.perf_counter()
    folder = config.resolve(where)
    copied = copy_release(archive, folder, config=config)
    checked = f"every byte read back in {copied.integrity_s:.2f} s"
    return SecondCopy(str(folder / copied.archive), checked, time.perf_counter() - started)


def push_release(archive: Path, store: Store, *, config: Config) -> SecondCopy:
    """Put a verified copy of a release into a store.

    What the store holds is held against the release's digest: by the store's own digest of the
    bytes that arrived where that is the MD5 of what was sent, else by reading all of it back. What
    is there already is held against it too, and not sent again. Raises ReleaseError: the release,
    or what lies in the store, is not what its checksum says; StorageError: the store refuses;
    BusyError: another push from this host is under way.
    """
    started = time.perf_counter()
    expected = read_checksum(archive)
    with hold_lock(config.releases_dir / LOCK_NAME, f"sending {archive.name} to {store.url}"):
        there = _list(store, archive)
        is_seen = has_checksum(there, archive.name)
        if is_seen:
            _refuse_other(store, archive, expected)
        checked = _send(archive, store, expected, there.get(archive.name), is_seen=is_seen)
        found = ArchiveFile(archive)
        for name, data in (
            (manifest_name(archive.name), found.read_listing()),
            (signature_name(archive.name), found.read_signature()),
        ):
            if data and not (is_seen and name in there):
                store.write(name, data)
        if not is_seen:
            line = f"{expected}  {archive.name}\n"
            store.write(checksum_name(archive.name), line.encode())
            if archive.name not in _list(store, archive):  # pruned as what a push had left
                store.delete([checksum_name(archive.name)])
                raise StorageError(f"{store.url}/{archive.name}: was deleted meanwhile; again")
    return SecondCopy(f"{store.url}/{archive.name}", checked, time.perf_counter() - started)


def _list(store: Store, archive: Path) -> dict[str, Entry]:
    return store.list(archive.name.partition(".")[0])


def _refuse_other(store: Store, archive: Path, expected: str) -> None:
    said = store.read(checksum_name(archive.name))
    if parse_checksum(said, archive.name) != expected:
        other = "another release of the same name lies there"
        raise ReleaseError(f"{store.url}/{archive.name}: {other}")


def _send(archive: Path, store: Store, expected: str, there: Entry | None, *, is_seen: bool) -> str:
    """Have the archive in the store, sent only where it is not there; return how it was held
    against its digest."""
    with ThreadPoolExecutor(1, "digest") as pool:
        digesting = pool.submit(_digest_file, archive)
        if there is None:
            with suppress(StorageError):  # it may be forbidden, and is no reason to send nothing
                store.drop_unfinished(archive.name)
            store.upload(archive, archive.name)
        sent = digesting.result()
    if sent.sha256 != expected:
        if not is_seen:
            store.delete([archive.name])
        raise ReleaseError(f"{archive}: its bytes are not those of its .sha256")
    found = _list(store, archive).get(archive.name)
    if found is None:
        raise StorageError(f"{store.url}/{archive.name}: was deleted meanwhile; again")
    if found.version == sent.version:
        return "the store's own digest of it fits"
    if found.bytes == sent.size and _read_back(store, archive.name) == expected:
        return "every byte read back"
    if is_seen:
        raise ReleaseError(f"{store.url}/{archive.name}: its bytes are not those of its .sha256")
    store.delete([archive.name])
    if there is not None:  # the rest of a push that was of other bytes
        return _send(archive, store, expected, None, is_seen=False)
    raise ReleaseError(f"{store.url}/{archive.name}: arrived damaged; nothing is kept of it")


@dataclass(frozen=True)
class _Sent:
    """What the archive here is: its digest, and what a store lists for it that makes MD5s."""

    sha256: str
    size: int
    version: str


def _digest_file(archive: Path) -> _Sent:
    """Read the archive once for its digest and for the tag that S3 gives it where it is sent as
    `Store.upload` does: the MD5 of its bytes, or that of the MD5s of its parts."""
    sha256, parts, size = hashlib.sha256(), [hashlib.md5(usedforsecurity=False)], 0
    try:
        with archive.open("rb", buffering=0) as file:
            whole = file.seek(0, 2) < 2 * PART_BYTES
            file.seek(0)
            while chunk := file.read(_CHUNK_BYTES):
                if not whole and size and size % PART_BYTES == 0:
                    parts.append(hashlib.md5(usedforsecurity=False))
                size += len(chunk)
                sha256.update(chunk)
                parts[-1].update(chunk)
    except OSError as error:
        raise InputError(f"{archive}: cannot be read: {error.strerror}") from error
    tag = parts[0].hexdigest()
    if not whole:
        digests = b"".join(part.digest() for part in parts)
        tag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
    return _Sent(sha256.hexdigest(), size, f"{size}-{tag}")


def _read_back(store: Store, name: str) -> str:
    digest = hashlib.sha256()
    with store.open(name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
