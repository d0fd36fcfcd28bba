"""An object of a store as a file that is read from its start to its end: in one request where the
protocol allows, and a block ahead of whoever reads.

A store answers many small requests more slowly than one large one, and while a block is worked on
the next one can be under way.
"""

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any, BinaryIO

BLOCK_BYTES = 1 << 22
_ATTEMPTS = 3
Errors = Callable[[], AbstractContextManager[None]]


def read_ahead(file: io.RawIOBase) -> BinaryIO:
    """Return what `file` holds as a file of which a block of 4 MiB is read ahead, by a thread of
    its own. It can be sent back to its start; close it."""
    return io.BufferedReader(_Ahead(file), BLOCK_BYTES)


class Reading(io.RawIOBase):
    """The bytes of an open file of fsspec's; `errors` says how its refusals are told."""

    def __init__(self, file: Any, errors: Errors) -> None:
        self._file, self._errors = file, errors

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer` and return how many bytes."""
        with self._errors():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte and return which."""
        with self._errors():
            return int(self._file.seek(offset, whence))

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            self._file.close()
        super().close()


class Streamed(io.RawIOBase):
    """The bytes of an object of S3, in one request; one that breaks off is gone on with by another,
    which is refused where the object is not the same any more."""

    def __init__(self, files: Any, path: str, errors: Errors) -> None:
        self._files, self._path, self._errors = files, path, errors
        self._body: Any = None
        self._same: dict[str, str] = {}
        self._at = self._size = 0
        with errors():
            self._ask()

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer` and return how many bytes."""
        with self._errors():
            count = self._read(memoryview(buffer))
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, counted from the start, and return which."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the start")
        if offset != self._at:
            self._drop()
            self._at = offset
        return offset

    def close(self) -> None:
        """Give up the request."""
        self._drop()
        super().close()

    def _read(self, buffer: memoryview) -> int:
        from fsspec.asyn import sync

        attempts = 0
        while self._at < self._size:
            if self._body is None:
                self._ask()
            try:
                count: int = sync(self._files.loop, _fill, self._body, buffer)
                if not count:
                    raise EOFError("the connection was cut")
            except Exception:  # of aiohttp and botocore, which have no root in common
                self._drop()
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise
            else:
                return count
        return 0

    def _ask(self) -> None:
        bucket, key, _ = self._files.split_path(self._path)
        part = {"Range": f"bytes={self._at}-"} if self._at else {}
        answer = self._files.call_s3("get_object", Bucket=bucket, Key=key, **part, **self._same)
        self._body = answer["Body"]
        self._size = self._at + int(answer["ContentLength"])
        self._same = {"IfMatch": answer["ETag"]}

    def _drop(self) -> None:
        if self._body is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._files.loop.call_soon_threadsafe(self._body.close)
            self._body = None


async def _fill(body: Any, buffer: memoryview) -> int:
    """Read until the buffer is full or the answer ends: one visit to the loop's thread a block, not
    one for each few kilobytes."""
    filled = 0
    while filled < len(buffer) and (data := await body.read(len(buffer) - filled)):
        buffer[filled : filled + len(data)] = data
        filled += len(data)
    return filled


class _Ahead(io.RawIOBase):
    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(1, "read-ahead")
        self._at = 0
        self._rest = memoryview(b"")
        self._next: Future[memoryview] = self._pool.submit(self._read_block)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._next.result()
            if not self._rest:
                return 0
            self._next = self._pool.submit(self._read_block)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = self._at + offset, io.SEEK_SET
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the start")
        if offset != self._at:
            with suppress(Exception):
                self._next.result()
            self._at, self._rest = self._file.seek(offset), memoryview(b"")
            self._next = self._pool.submit(self._read_block)
        return self._at

    def close(self) -> None:
        if not self.closed:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._file.close()
        super().close()

    def _read_block(self) -> memoryview:
        block, filled = memoryview(bytearray(BLOCK_BYTES)), 0
        while filled < BLOCK_BYTES and (count := self._file.readinto(block[filled:])):
            filled += count
        return block[:filled]
