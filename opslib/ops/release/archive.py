"""Writing a release: files become a tar, the tar becomes gzip members, all in one pass.

Every block of the tar is one gzip member that says its own length (in a header field that other
tools skip), so that blocks are deflated, and later inflated, on all cores at once. The tar itself
depends on names, contents and the given time alone.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO, Self

from isal import isal_zlib

from opslib.core.cards import FileEntry
from opslib.core.errors import InputError
from opslib.core.host import usable_cpus
from opslib.ops.release.opened import OpenedFile

BLOCK_BYTES = 1 << 20
SYNC_BYTES = 4 << 20
LEVEL = 1
# Magic, deflate, FEXTRA; no time, no system; one extra field "PS" of four bytes: the whole length.
MEMBER_HEADER = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + struct.pack("<H2sH", 8, b"PS", 4)
MEMBER_LENGTH = struct.Struct("<I")
_TRAILER = struct.Struct("<II")
OnBytes = Callable[[int], None]


def deflate_member(block: memoryview) -> bytes:
    """Return `block` as one gzip member that states its own length."""
    raw = isal_zlib.compress(block, LEVEL, wbits=-15)
    trailer = _TRAILER.pack(isal_zlib.crc32(block), len(block))
    length = len(MEMBER_HEADER) + MEMBER_LENGTH.size + len(raw) + len(trailer)
    return b"".join((MEMBER_HEADER, MEMBER_LENGTH.pack(length), raw, trailer))


@dataclass
class _Block:
    data: bytearray = field(default_factory=lambda: bytearray(BLOCK_BYTES))
    filled: int = 0
    hashing: list[Future[None]] = field(default_factory=list)


class ArchiveWriter:
    """A tar.gz under way in `sink`: add files, then `close` for its digest and size. Reading and
    writing happen on the caller's thread; deflating, the digest of each file and that of the
    archive on others. At most a few blocks are under way at a time."""

    def __init__(self, sink: BinaryIO, *, mtime_s: int, threads: int, on_bytes: OnBytes) -> None:
        self._sink, self._mtime_s, self._on_bytes = sink, mtime_s, on_bytes
        count = threads or usable_cpus()
        self._window = count + 2
        self._deflating = ThreadPoolExecutor(count, "deflate")
        names = ("hash", "digest", "sync")
        self._hashing, self._digesting, self._syncing = (ThreadPoolExecutor(1, n) for n in names)
        self._synced: list[Future[None]] = []
        self._block = _Block()
        self._under_way: deque[tuple[_Block, Future[bytes]]] = deque()
        self._digest = hashlib.sha256()
        self._digested: Future[None] = self._digesting.submit(self._digest.update, b"")
        self._tar_size = 0
        self.size_bytes = 0
        self._entries: list[tuple[str, int, hashlib._Hash]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for pool in (self._deflating, self._hashing, self._digesting, self._syncing):
            pool.shutdown(wait=True, cancel_futures=True)

    def add(self, opened: OpenedFile) -> None:
        """Pack an opened file: the bytes of what was opened, whatever its name means by now. Raises
        InputError: it changed while it was read, or cannot be read."""
        digest = self._begin(opened.member, opened.size)
        left = opened.size
        while left:
            block = self._room()
            space = memoryview(block.data)[block.filled : block.filled + left]
            count = opened.read_into(space)
            if not count:
                raise InputError(f"{opened.source}: became shorter while it was packed")
            block.filled += count
            left -= count
            block.hashing.append(self._hashing.submit(digest.update, space[:count]))
            self._on_bytes(count)
        opened.ensure_unchanged()
        self._tar_size += opened.size
        self._put(bytes(-opened.size % tarfile.BLOCKSIZE))

    def add_bytes(self, member: str, data: bytes) -> None:
        """Pack a small file that exists in memory alone."""
        self._begin(member, len(data)).update(data)
        self._put(data + bytes(-len(data) % tarfile.BLOCKSIZE))

    def entries(self) -> tuple[FileEntry, ...]:
        """Return what was packed so far, once every digest is known."""
        self._hashing.submit(lambda: None).result()
        found = self._entries
        return tuple(FileEntry(path=n, size=s, sha256=d.hexdigest()) for n, s, d in found)

    def close(self) -> str:
        """End the archive and return its SHA-256; the last of it is not synced yet."""
        self._put(bytes(2 * tarfile.BLOCKSIZE))
        self._put(bytes(-self._tar_size % tarfile.RECORDSIZE))
        if self._block.filled:
            self._seal()
        while self._under_way:
            self._write_oldest()
        self._sink.flush()
        for done in (self._digested, *self._synced):
            done.result()
        return self._digest.hexdigest()

    def _begin(self, member: str, size: int) -> hashlib._Hash:
        info = tarfile.TarInfo(member)
        info.size, info.mtime = size, self._mtime_s
        self._put(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
        digest = hashlib.sha256()
        self._entries.append((member, size, digest))
        return digest

    def _put(self, data: bytes) -> None:
        self._tar_size += len(data)
        while data:
            block = self._room()
            piece, data = data[: BLOCK_BYTES - block.filled], data[BLOCK_BYTES - block.filled :]
            block.data[block.filled : block.filled + len(piece)] = piece
            block.filled += len(piece)

    def _room(self) -> _Block:
        if self._block.filled == BLOCK_BYTES:
            self._seal()
        return self._block

    def _seal(self) -> None:
        block = self._block
        content = memoryview(block.data)[: block.filled]
        self._under_way.append((block, self._deflating.submit(deflate_member, content)))
        self._block = _Block()
        while len(self._under_way) > self._window:
            self._write_oldest()

    def _write_oldest(self) -> None:
        block, deflating = self._under_way.popleft()
        member = deflating.result()
        for done in (*block.hashing, self._digested):
            done.result()
        self._digested = self._digesting.submit(self._digest.update, member)
        self._sink.write(member)
        self.size_bytes += len(member)
        if self.size_bytes // SYNC_BYTES > len(self._synced):  # the sync at the end is then short
            self._sink.flush()
            self._synced.append(self._syncing.submit(os.fdatasync, self._sink.fileno()))
