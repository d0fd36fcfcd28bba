"""Reading a tar.gz back, block by block and on all cores, its SHA-256 taken on the way."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import BinaryIO, Self

from isal import isal_zlib

from opslib.core.errors import InputError
from opslib.core.host import usable_cpus
from opslib.ops.release.archive import BLOCK_BYTES, MEMBER_HEADER, MEMBER_LENGTH

MAX_MEMBER_BYTES = 2 * BLOCK_BYTES
_GZIP = 31  # window bits: a gzip header and trailer, both checked
_RAW = -15  # neither
_TRAILER_BYTES = 8
_SALVAGE_BYTES = 256
_CUT_OFF = "it ends in the middle of a gzip member"
_IsalError: type[Exception] = isal_zlib.error  # type: ignore[assignment]
_START = len(MEMBER_HEADER) + MEMBER_LENGTH.size


class DamagedGzipError(Exception):
    """The bytes are no gzip stream, or its checks fail."""


class GzipReader:
    """The content of a gzip file as blocks of at most one MiB. Members that state their length are
    inflated in parallel, all else as one stream. However far the blocks were read, `finish` reads
    every remaining byte and returns the file's SHA-256. A `lenient` reader goes on after damage
    inside a member, with zeros where nothing can be read."""

    def __init__(self, file: BinaryIO, *, threads: int = 0, lenient: bool = False) -> None:
        self._file = file
        self._inflate = _salvage_member if lenient else _inflate_member
        count = threads or usable_cpus()
        self._window = count + 2
        self._inflating = ThreadPoolExecutor(count, "inflate")
        self._digesting = ThreadPoolExecutor(1, "digest")
        self._digest = hashlib.sha256()
        self._digested: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for pool in (self._inflating, self._digesting):
            pool.shutdown(wait=True, cancel_futures=True)

    def blocks(self) -> Iterator[bytes]:
        """Yield the content in order. Raises DamagedGzipError: it cannot be inflated, or a checksum
        is wrong."""
        start = self._read(_START)
        stated = start.startswith(MEMBER_HEADER) and len(start) == _START
        yield from self._inflate_members(start) if stated else self._inflate_stream(start)

    def finish(self) -> str:
        """Read what is left and return the SHA-256 of the whole file."""
        while self._read(BLOCK_BYTES):
            pass
        while self._digested:
            self._digested.popleft().result()
        return self._digest.hexdigest()

    def _inflate_members(self, start: bytes) -> Iterator[bytes]:
        under_way: deque[Future[bytes]] = deque()
        while start:
            under_way.append(self._inflating.submit(self._inflate, start, self._read_member(start)))
            if len(under_way) > self._window:
                yield under_way.popleft().result()
            start = self._read(_START)
        while under_way:
            yield under_way.popleft().result()

    def _read_member(self, start: bytes) -> bytes:
        if len(start) < _START or not start.startswith(MEMBER_HEADER):
            raise DamagedGzipError("a gzip member does not begin where the one before ends")
        (length,) = MEMBER_LENGTH.unpack_from(start, len(MEMBER_HEADER))
        if not _START < length <= MAX_MEMBER_BYTES:
            raise DamagedGzipError("a gzip member states an impossible length")
        rest = self._read(length - _START)
        if len(rest) < length - _START:
            raise DamagedGzipError(_CUT_OFF)
        return rest

    def _inflate_stream(self, data: bytes) -> Iterator[bytes]:
        if not data:
            raise DamagedGzipError("the file is empty")
        while data:
            stream = isal_zlib.decompressobj(wbits=_GZIP)
            while not stream.eof:
                try:
                    block = stream.decompress(data, max_length=BLOCK_BYTES)
                except _IsalError as error:
                    raise DamagedGzipError(str(error)) from error
                if block:
                    yield block
                data = stream.unconsumed_tail
                if not (stream.eof or data or block):
                    data = self._read(BLOCK_BYTES)
                    if not data:
                        raise DamagedGzipError(_CUT_OFF)
            data = stream.unused_data or self._read(BLOCK_BYTES)

    def _read(self, count: int) -> bytes:
        try:
            data = self._file.read(count)
        except OSError as error:
            raise InputError(f"the archive cannot be read: {error.strerror}") from error
        if data:
            while len(self._digested) > self._window:
                self._digested.popleft().result()
            self._digested.append(self._digesting.submit(self._digest.update, data))
        return data


def _inflate_member(start: bytes, rest: bytes) -> bytes:
    """The content of one gzip member that states its length, never more than a block. Raises
    DamagedGzipError: it cannot be inflated, holds too much, or a checksum is wrong."""
    stream = isal_zlib.decompressobj(wbits=_GZIP)
    try:
        block = stream.decompress(start + rest, max_length=BLOCK_BYTES + 1)
    except _IsalError as error:
        raise DamagedGzipError(str(error)) from error
    if not stream.eof or stream.unused_data or len(block) > BLOCK_BYTES:
        raise DamagedGzipError("a gzip member is not as long as it states")
    return block


def _salvage_member(start: bytes, rest: bytes) -> bytes:
    """What can be inflated of a member that may be damaged, its checksum ignored, filled up with
    zeros to the length that it states."""
    with suppress(DamagedGzipError):
        return _inflate_member(start, rest)
    stream, data = isal_zlib.decompressobj(wbits=_RAW), bytearray()
    raw, length = rest[:-_TRAILER_BYTES], min(int.from_bytes(rest[-4:], "little"), BLOCK_BYTES)
    with suppress(_IsalError):
        for begin in range(0, len(raw), _SALVAGE_BYTES):
            piece = raw[begin : begin + _SALVAGE_BYTES]
            data += stream.decompress(piece, max_length=BLOCK_BYTES)
            if len(data) >= length or stream.eof:
                break
    return bytes(data[:length].ljust(length, b"\0"))
