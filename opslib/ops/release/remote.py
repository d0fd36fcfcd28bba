"""Releases in a store that several hosts share: what there is, finding one, reading one in place.

A release lies there as three objects, or four with its signature, of which its checksum is written
last: what has none is what a push left that never ended, and nobody sees it. One more, of no
content that matters, pins it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import BinaryIO

from opslib.core.clock import ASK, is_ahead
from opslib.core.config import Config
from opslib.core.errors import ParameterError
from opslib.core.formatting import utc_now
from opslib.core.store import Entry, Store, open_store
from opslib.core.store_address import check_store_url, is_address
from opslib.ops.release.companions import (
    ARCHIVE_SUFFIX,
    CHECKSUM_SUFFIX,
    checksum_name,
    checksum_size,
    manifest_name,
    parse_checksum,
    parse_copy,
    signature_name,
)
from opslib.ops.release.manifest import MAX_MANIFEST_BYTES, Manifest, ReleaseError
from opslib.ops.release.store import (
    ListedRelease,
    StoredRelease,
    find_release,
    is_release_name,
    newest_first,
    read_name,
)

CONFIGURED = "copy_to"
PIN_SUFFIX = ".pin"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class RemoteRelease(ListedRelease):
    """A release in a store, whose archive can be read in place (`sources.Archive`). `objects`: what
    belongs to it there, its checksum first, so that whoever deletes them in this order never leaves
    one that can be seen and is not whole."""

    store: Store = field(repr=False)
    objects: dict[str, Entry] = field(repr=False, hash=False)

    @property
    def file_name(self) -> str:
        """The name of its archive."""
        return f"{self.name}{ARCHIVE_SUFFIX}"

    @property
    def url(self) -> str:
        """The address of its archive."""
        return f"{self.store.url}/{self.file_name}"

    def open(self) -> BinaryIO:
        """Open the archive to read it from its start. Raises StorageError: it cannot be read."""
        return self.store.open(self.file_name)

    def read_checksum(self) -> str:
        """Return the digest that the object beside it states; see `companions.read_checksum`."""
        return parse_checksum(self._read_small(checksum_name(self.file_name)), self.file_name)

    def read_listing(self) -> bytes:
        """Return what lies beside it as a copy of its manifest, empty where nothing does."""
        name = manifest_name(self.file_name)
        return self._read_small(name) if name in self.objects else b""

    def read_signature(self) -> bytes:
        """Return what lies beside it as the signature of its manifest, empty where nothing does."""
        name = signature_name(self.file_name)
        return self._read_small(name) if name in self.objects else b""

    def manifest(self) -> Manifest:
        copy = self.read_copy()
        if copy is None:
            raise ReleaseError(f"{self.url}: no copy of its manifest lies beside it")
        return copy

    def read_copy(self) -> Manifest | None:
        return _read_copy(
            self.store, self.file_name, self.objects.get(manifest_name(self.file_name))
        )

    def _read_small(self, name: str) -> bytes:
        _refuse_large(self.store, name, self.objects[name])
        return self.store.read(name)


@dataclass(frozen=True)
class Holdings:
    """What a look at a store found: its releases, the newest first, and by release the objects of
    pushes and deletions that never ended."""

    store: Store
    releases: tuple[RemoteRelease, ...]
    unfinished: dict[str, dict[str, Entry]]


def look_into(
    store: Store, *, now: datetime | None = None, pinned: Collection[str] = ()
) -> Holdings:
    """Return what a store holds; other objects than a release's are passed over. The order is that
    of `list_releases`. `pinned`: names that are pinned besides those that are pinned there. Raises
    StorageError: it cannot be listed or read."""
    moment = now or utc_now()
    by_name: dict[str, dict[str, Entry]] = {}
    for object_name, entry in store.list("release-").items():
        name = _release_of(object_name)
        if name is not None:
            by_name.setdefault(name, {})[object_name] = entry
    whole, unfinished = [], {}
    for name, objects in by_name.items():
        if has_checksum(objects, f"{name}{ARCHIVE_SUFFIX}"):
            one = _look_at(store, name, objects, moment)
            whole.append(replace(one, pinned=one.pinned or name in pinned))
        elif set(objects) != {f"{name}{PIN_SUFFIX}"}:
            unfinished[name] = objects
    return Holdings(store, newest_first(whole), unfinished)


def has_checksum(objects: Mapping[str, Entry], archive_name: str) -> bool:
    """Return whether the checksum of an archive is there, and not the beginning of one: some
    servers keep what arrived of an object whose connection was cut."""
    found = objects.get(checksum_name(archive_name))
    return found is not None and found.bytes >= checksum_size(archive_name)


def find_remote(url: str) -> RemoteRelease:
    """Return the release that an address names: `s3://bucket/prefix/RELEASE`, with or without
    `.tar.gz`; `latest` is the newest. Raises ParameterError: it is no such address, or there is no
    such release; StorageError: the store cannot be read."""
    place, _, name = check_store_url(url).rpartition("/")
    name = name.removesuffix(ARCHIVE_SUFFIX)
    if name != "latest" and not is_release_name(name):
        raise ParameterError(f"{url}: names no release; expected {url}/release-<UTC>-<sha>")
    there = look_into(open_store(place)).releases
    for one in there:
        if name in (one.name, "latest"):
            return one
    names = ", ".join(one.name for one in there[:_SHOWN]) + (", …" if len(there) > _SHOWN else "")
    raise ParameterError(f"{url}: no such release; in {place}: {names or 'none'}")


def find_anywhere(config: Config, name: str | None) -> StoredRelease | RemoteRelease:
    """Return the release meant: by its address in a store, else as `find_release` does, else by its
    name in the store that `release.copy_to` is. Raises ParameterError: there is none."""
    if name is not None and is_address(name):
        return find_remote(name)
    try:
        return find_release(config, name)
    except ParameterError:
        second, wanted = str(config.release.copy_to), (name or "").removesuffix(ARCHIVE_SUFFIX)
        if not is_address(second) or not is_release_name(wanted):
            raise
        return find_remote(f"{second}/{wanted}")


def open_given(config: Config, given: str) -> Store:
    """Return the store at an address, or for `copy_to` the one that `release.copy_to` is. Raises
    ParameterError: it is none; UnavailableError: see `open_store`."""
    url = given
    if given == CONFIGURED:
        url = str(config.release.copy_to or "")
        if not is_address(url):
            said = f"release.copy_to is {url}" if url else "release.copy_to is not set"
            raise ParameterError(f"--store {given}: {said}; expected the address of a store")
    return open_store(url)


def pin_remote(release: RemoteRelease, *, pinned: bool) -> RemoteRelease:
    """Keep a release in a store from being pruned by any host, or let it be pruned again, and
    return it. Raises StorageError: the store refuses."""
    name = f"{release.name}{PIN_SUFFIX}"
    if pinned:
        release.store.write(name, b"pinned\n")
    else:
        release.store.delete([name])
    return release


def _release_of(object_name: str) -> str | None:
    """The release that an object belongs to by its name, or None."""
    archive = f"{ARCHIVE_SUFFIX}{CHECKSUM_SUFFIX}"
    for suffix in (archive, ARCHIVE_SUFFIX, manifest_name(""), signature_name(""), PIN_SUFFIX):
        if object_name.endswith(suffix):
            name = object_name.removesuffix(suffix)
            return name if is_release_name(name) else None
    return None


def _look_at(store: Store, name: str, objects: dict[str, Entry], now: datetime) -> RemoteRelease:
    """What can be said of a release without reading its archive."""
    archive = f"{name}{ARCHIVE_SUFFIX}"
    moment, git_sha = read_name(name)
    there, listing = objects.get(archive), objects.get(manifest_name(archive))
    copy = _read_copy(store, archive, listing)
    ahead, problem = is_ahead(moment, now), None
    if there is None:
        problem = "its archive is missing"
    elif not there.bytes:
        problem = "empty"
    elif moment is None:
        problem = "its name holds no date"
    elif copy is None and listing is not None:
        problem = f"{manifest_name(archive)} is no copy of its manifest"
    elif ahead:
        problem = f"dated after now: {ASK}"
    beside = (checksum_name(archive), manifest_name(archive), signature_name(archive))
    order = (*beside, archive, f"{name}{PIN_SUFFIX}")
    return RemoteRelease(
        store=store,
        objects={one: objects[one] for one in order if one in objects},
        name=name,
        size_bytes=there.bytes if there else 0,
        released_at_utc=moment.isoformat(timespec="seconds") if moment else None,
        git_sha=git_sha,
        pinned=f"{name}{PIN_SUFFIX}" in objects,
        problem=problem,
        is_ahead=ahead,
        sequence=copy.sequence if copy else None,
        has_signature=signature_name(archive) in objects,
    )


@lru_cache(maxsize=1024)
def _read_copy(store: Store, archive: str, entry: Entry | None) -> Manifest | None:
    """The copy of a manifest, read once while it is the same object: a store is looked into again
    at each deletion."""
    if entry is None or entry.bytes > MAX_MANIFEST_BYTES:
        return None
    try:
        return parse_copy(store.read(manifest_name(archive)), archive.removesuffix(ARCHIVE_SUFFIX))
    except ReleaseError:
        return None


def _refuse_large(store: Store, name: str, entry: Entry) -> None:
    if entry.bytes > MAX_MANIFEST_BYTES:
        raise ReleaseError(f"{store.url}/{name}: {entry.bytes:,} bytes; it is never that large")
