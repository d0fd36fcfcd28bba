"""Unpacking what may have been made by someone else: names, kinds, sizes and counts are checked.

Only regular files and folders are accepted, each name once, relative and plain; links, devices and
sparse files are not. Bytes are written into a fresh folder alone, and no link is ever made there
while files are unpacked, so that nothing can lead out of it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from opslib.core.cards import FileEntry
from opslib.core.config import Config
from opslib.core.errors import storage_errors
from opslib.core.formatting import format_bytes
from opslib.ops.release.inflate import DamagedGzipError, GzipReader
from opslib.ops.release.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_NAME_BYTES,
    VERSION_NAME,
    ReleaseError,
    find_name_problem,
    show_name,
)
from opslib.ops.release.scratch import ensure_room

_MAX_TAIL_BYTES = 1 << 20
_KEPT = frozenset({MANIFEST_NAME, VERSION_NAME})
_BLOCK = tarfile.BLOCKSIZE
_MIB = 1 << 20
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
_REFUSED = {
    tarfile.SYMTYPE: "a link to ",
    tarfile.LNKTYPE: "a link to ",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


@dataclass(frozen=True)
class UnpackLimits:
    """How many files an archive may hold, and bytes of one and of all of them."""

    max_files: int = 10_000
    max_file_bytes: int = 16 << 30
    max_total_bytes: int = 64 << 30

    @classmethod
    def of(cls, config: Config) -> UnpackLimits:
        """Return the limits of the configuration."""
        found = config.release
        return cls(found.max_files, found.max_file_mb * _MIB, found.max_total_mb * _MIB)


@dataclass
class Contents:
    """What an archive held: an entry for each file, in order, and the bytes of the small ones."""

    entries: list[FileEntry] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)


def unpack(
    reader: GzipReader, limits: UnpackLimits, folder: Path | None = None, *, durable: bool = False
) -> Contents:
    """Read every byte of a tar.gz and, if a `folder` is given, write its files into it. `folder`:
    an empty folder that nobody else writes to; `durable`: have each file on disk before the next.
    Raises ReleaseError: damaged, or a member is not accepted; the message names the member.
    StorageError: the disk is full."""
    unpacker = _Unpacker(reader, limits, folder, durable)
    try:
        with storage_errors(f"unpack into {folder}"):
            return unpacker.run()
    except DamagedGzipError as error:
        raise ReleaseError(f"{unpacker.where}: damaged: {error}") from error
    finally:
        unpacker.hashing.shutdown(wait=True, cancel_futures=True)


class _Unpacker:
    def __init__(
        self, reader: GzipReader, limits: UnpackLimits, folder: Path | None, durable: bool
    ) -> None:
        self._blocks, self._rest = reader.blocks(), memoryview(b"")
        self._limits, self._folder, self._durable = limits, folder, durable
        self._names: set[str] = set()
        self._folders: set[str] = set()
        self._total_bytes = 0
        self._contents = Contents()
        self.hashing = ThreadPoolExecutor(1, "hash")
        self.where = "the first header"

    def run(self) -> Contents:
        while (info := self._next_header()) is not None:
            if info.isdir():
                info.name = info.name.rstrip("/") or "/"
            self.where = name = info.name
            self._admit(info)
            if not info.isdir():
                self._unpack_file(info)
            elif self._folder is not None:
                (self._folder / name).mkdir(parents=True, exist_ok=True)
            self.where = f"the header after {name}"
        self.where = "the end of the tar"
        tail = self._take(_MAX_TAIL_BYTES + 1)
        if any(tail) or len(tail) > _MAX_TAIL_BYTES:
            raise ReleaseError("there are bytes behind the end of the tar")
        return self._contents

    def _pieces(self, count: int) -> Iterator[memoryview]:
        """Yield the next `count` bytes, or fewer where the stream ends, without copying."""
        while count:
            if not self._rest:
                block = next(self._blocks, None)
                if block is None:
                    return
                self._rest = memoryview(block)
            piece, self._rest = self._rest[:count], self._rest[count:]
            count -= len(piece)
            yield piece

    def _take(self, count: int) -> bytes:
        return b"".join(self._pieces(count))

    def _next_header(self) -> tarfile.TarInfo | None:
        info = self._read_header()
        if info is None or info.type != tarfile.GNUTYPE_LONGNAME:
            return info
        if not 0 < info.size <= MAX_NAME_BYTES + 1:
            raise ReleaseError(f"{self.where}: a name of {info.size:,} bytes")
        long = self._take(info.size)
        self._skip_padding(info.size)
        following = self._read_header()
        if following is None or following.type == tarfile.GNUTYPE_LONGNAME:
            raise ReleaseError(f"{self.where}: a long name without a file")
        following.name = long.removesuffix(b"\0").decode("utf-8", "surrogateescape")
        return following

    def _read_header(self) -> tarfile.TarInfo | None:
        header = self._take(_BLOCK)
        if len(header) < _BLOCK:
            raise ReleaseError(f"{self.where}: the tar ends without its end mark")
        if not any(header):
            if any(self._take(_BLOCK)):
                raise ReleaseError(f"{self.where}: the tar's end mark is broken")
            return None
        try:
            return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ReleaseError(f"{self.where}: no tar header ({error})") from error

    def _admit(self, info: tarfile.TarInfo) -> None:
        name, limits = info.name, self._limits
        if info.type not in _PLAIN:
            kind = _REFUSED.get(info.type, f"a member of type {info.type!r}")
            kind += show_name(info.linkname) if info.issym() or info.islnk() else ""
            raise ReleaseError(f"{show_name(name)}: {kind}; only files and folders may be")
        problem = find_name_problem(name)
        if problem is not None:
            raise ReleaseError(f"{show_name(name)}: {problem}")
        if name in self._names or (name in self._folders and not info.isdir()):
            raise ReleaseError(f"{name}: the name comes twice")
        parents = [parent.as_posix() for parent in PurePosixPath(name).parents[:-1]]
        for parent in parents:
            if parent in self._names and parent not in self._folders:
                raise ReleaseError(f"{name}: {parent} is a file, not a folder")
        self._names.add(name)
        self._folders.update(parents, [name] if info.isdir() else [])
        self._total_bytes += info.size
        most = format_bytes(limits.max_file_bytes), format_bytes(limits.max_total_bytes)
        if len(self._names) > limits.max_files:
            raise ReleaseError(f"{name}: more than {limits.max_files:,} files")
        if info.isdir() and info.size:
            raise ReleaseError(f"{name}: a folder with content")
        if not 0 <= info.size <= limits.max_file_bytes:
            raise ReleaseError(f"{name}: {info.size:,} bytes; at most {most[0]} a file")
        if self._total_bytes > limits.max_total_bytes:
            raise ReleaseError(f"{name}: more than {most[1]} altogether")

    def _unpack_file(self, info: tarfile.TarInfo) -> None:
        digest, kept, left = hashlib.sha256(), bytearray(), info.size
        keep = info.name in _KEPT
        if keep and info.size > MAX_MANIFEST_BYTES:
            raise ReleaseError(f"{info.name}: {info.size:,} bytes; it is never that large")
        hashed = self.hashing.submit(digest.update, b"")
        with self._open(info) as write:
            for piece in self._pieces(info.size):
                hashed.result()
                hashed = self.hashing.submit(digest.update, piece)
                left -= len(piece)
                if keep:
                    kept += piece
                write(piece)
            if left:
                raise ReleaseError(f"{info.name}: damaged: the archive ends within it")
            self._skip_padding(info.size)
            hashed.result()
        entry = FileEntry(path=info.name, size=info.size, sha256=digest.hexdigest())
        self._contents.entries.append(entry)
        if keep:
            self._contents.kept[info.name] = bytes(kept)

    @contextmanager
    def _open(self, info: tarfile.TarInfo) -> Iterator[Callable[[memoryview], object]]:
        """Yield what writes into the new file, or nowhere where nothing is written."""
        if self._folder is None:
            yield len
            return
        ensure_room(self._folder, info.size, info.name)
        path = self._folder / info.name
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
            yield file.write
            if self._durable:
                file.flush()
                os.fsync(file.fileno())

    def _skip_padding(self, size: int) -> None:
        padding = self._take(-size % _BLOCK)
        if len(padding) < -size % _BLOCK or any(padding):
            raise ReleaseError(f"{self.where}: damaged: its padding is not empty")
