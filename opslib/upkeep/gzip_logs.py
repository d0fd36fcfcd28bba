"""Compressing a log so that it is never lost: whole or not at all, read back, date kept."""

import os
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib

from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import open_atomic

LEVEL = 2
_GAP = 16
_CHUNK_BYTES = 1 << 20
_GZIP = 31  # deflate within a gzip header and trailer
_IsalError: type[Exception] = isal_zlib.error  # type: ignore[assignment]


def free_name(folder: Path, name: str, ending: str = "") -> Path:
    """Return `folder/name+ending`, with `-2`, `-3`, … before the ending while that is taken."""
    path, number = folder / f"{name}{ending}", 1
    while os.path.lexists(path):
        number += 1
        path = folder / f"{name}-{number}{ending}"
    return path


def compress_range(source: BinaryIO, start: int, stop: int, target: Path, mtime_ns: int) -> int:
    """Write the bytes `start` to `stop` of a file to the new gzip file `target` with the date
    `mtime_ns` and return its size.

    It is on disk, and was read back and compared, before this returns. Raises `StorageError` where
    the source is shorter, the disk is full, or what was written reads back differently; `target`
    does not exist then.
    """
    checksum = length = 0
    mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode) & 0o666
    packer = isal_zlib.compressobj(LEVEL, wbits=_GZIP)
    with open_atomic(target, mode=mode) as file:
        for chunk in _read_range(source, start, stop):
            checksum, length = isal_zlib.crc32(chunk, checksum), length + len(chunk)
            file.write(packer.compress(chunk))
        file.write(packer.flush())
        if length != stop - start:
            raise StorageError(f"it ended after {start + length} of {stop} bytes")
        file.flush()
        os.utime(file.fileno(), ns=(mtime_ns, mtime_ns))
    if _summarise(target) != (checksum, length):
        target.unlink()
        raise StorageError(f"{target}: reads back differently; the disk may be failing")
    return target.stat().st_size


def compress_file(source: Path, folder: Path) -> tuple[Path, int]:
    """Move the log `source` into `folder` as `<name>.gz`; return the archive and the bytes freed.

    A taken name gets a suffix, unless it is this log's own archive from a run that was killed
    before it could remove the log. Raises `StorageError` where it changed meanwhile, or see
    `compress_range`; the log is still there then.
    """
    with storage_errors(f"compress {source.name}"), source.open("rb") as file:
        before = os.fstat(file.fileno())
        target = _find_archive(folder, source.name, file, before)
        if target is None:
            target = free_name(folder, source.name, ".gz")
            compress_range(file, 0, before.st_size, target, before.st_mtime_ns)
        after = source.stat()
        if (after.st_ino, after.st_size) != (before.st_ino, before.st_size):
            target.unlink()
            raise StorageError("it was written to while it was compressed")
        source.unlink()
        return target, before.st_size - target.stat().st_size


def _read_range(source: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    source.seek(start)
    while start < stop and (chunk := source.read(min(_CHUNK_BYTES, stop - start))):
        start += len(chunk)
        yield chunk


def _summarise(path: Path) -> tuple[int, int] | None:
    """Checksum and length of what a gzip file holds, or None where it is not a whole one."""
    unpacker = isal_zlib.decompressobj(wbits=_GZIP)
    try:
        with path.open("rb") as file:
            packed = iter(partial(file.read, _CHUNK_BYTES), b"")
            found = _sum_up(map(unpacker.decompress, packed))
    except (OSError, _IsalError):
        return None
    return found if unpacker.eof and not unpacker.unused_data else None


def _sum_up(chunks: Iterable[bytes]) -> tuple[int, int]:
    """Checksum and length of all that comes."""
    checksum = length = 0
    for chunk in chunks:
        checksum, length = isal_zlib.crc32(chunk, checksum), length + len(chunk)
    return checksum, length


def _archives_of(folder: Path, name: str) -> Iterator[Path]:
    """The archives of a log that `free_name` named, by name and not by listing a whole folder;
    some may have been deleted in between."""
    number = missing = 0
    while missing < _GAP:
        number += 1
        path = folder / (f"{name}.gz" if number == 1 else f"{name}-{number}.gz")
        if path.is_file():
            missing = 0
            yield path
        else:
            missing += 1


def _find_archive(folder: Path, name: str, source: BinaryIO, facts: os.stat_result) -> Path | None:
    """The archive of this very log that a killed run left beside it, or None."""
    same_date = [
        path for path in _archives_of(folder, name) if path.stat().st_mtime_ns == facts.st_mtime_ns
    ]
    if not same_date:
        return None
    wanted = _sum_up(_read_range(source, 0, facts.st_size))
    return next((path for path in same_date if _summarise(path) == wanted), None)
