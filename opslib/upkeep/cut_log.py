"""Taking the archived front off a log that somebody writes, without that writer noticing.

`FALLOC_FL_COLLAPSE_RANGE` (ext4, xfs) removes whole blocks from the front of a file in one step;
a line appended meanwhile lands behind them. Where a filesystem cannot do that, the rest of the log
is copied until nothing is left to copy, and the log is truncated at once: a line appended between
that last look and the truncation, some microseconds, is lost, or its end is.

A run can be killed at any moment, so the intention is written down first, and a mark over the
first bytes of the log, which are safe in the archive by then, tells a later run whether the front
was taken off already.
"""

import ctypes
import json
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import sha256_bytes, write_text_atomic

_COLLAPSE_RANGE = 0x08
_MARK_BYTES = 32
_HEAD_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_LINE_TRIES = 100
Way = Literal["collapse", "truncate"]


@dataclass(frozen=True)
class Cut:
    """One rotation under way: which log, how much of it is in which archive, how far it got.

    `archived_to` bytes of the log are in `archive`; `removes` of them, whole blocks, are collapsed,
    and what lies between is overwritten with blanks. `tail` takes what a truncation must copy;
    `head` is a digest by which the log is known again.
    """

    log: str
    inode: int
    way: Way
    archive: str
    archived_to: int
    removes: int
    mark: str
    head: str
    tail: str
    marked: bool = False


def collapse_works(folder: Path) -> bool:
    """Return whether files in `folder` can lose their front; asks the filesystem itself."""
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as probe:
        block = os.fstatvfs(probe.fileno()).f_bsize
        probe.write(b"\0" * (2 * block))
        probe.flush()
        collapse_front(probe.fileno(), block)
        return os.fstat(probe.fileno()).st_size == block
    return False


def collapse_front(descriptor: int, size_bytes: int) -> None:
    """Remove `size_bytes`, a multiple of the block size, from the front of an open file. Raises
    `OSError` where the filesystem cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    offset, length = ctypes.c_int64(0), ctypes.c_int64(size_bytes)
    if libc.fallocate(ctypes.c_int(descriptor), _COLLAPSE_RANGE, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def plan_cut(descriptor: int, log: Path, archive: str, way: Way, tail: str) -> Cut | None:
    """Return how the log is cut: behind a whole line and, for a collapse, at a block; None where
    there is not a block to remove."""
    facts = os.fstat(descriptor)
    size = _last_line_end(descriptor, facts.st_size)
    block = os.fstatvfs(descriptor).f_bsize
    removes = min(size, facts.st_size - 1) // block * block
    if size <= _MARK_BYTES or (way == "collapse" and removes == 0):
        return None
    mark = secrets.token_hex(_MARK_BYTES // 2)
    head = _digest_head(descriptor, size)
    return Cut(log.name, facts.st_ino, way, archive, size, removes, mark, head, tail)


def blank_front(descriptor: int) -> int:
    """Return how many bytes at the front are the blanks that an earlier cut left."""
    head = os.pread(descriptor, os.fstatvfs(descriptor).f_bsize, 0)
    line, end, _ = head.partition(b"\n")
    return len(line) + 1 if end and not line.strip(b" ") else 0


def finish_cut(folder: Path, cut: Cut) -> bool:
    """Take the archived front off the log; return False where the log is no longer the same.

    May be called again for a cut that was killed halfway. Raises `StorageError` where the disk
    refuses; the intention stays written down.
    """
    with storage_errors(f"rotate {cut.log}"):
        try:
            descriptor = os.open(folder / cut.log, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            is_same = False
        else:
            try:
                known = os.fstat(descriptor).st_ino == cut.inode
                is_same = known and (cut.marked or _is_same(descriptor, cut))
                if is_same:
                    _take_off(folder, descriptor, _mark(folder, descriptor, cut))
            finally:
                os.close(descriptor)
        forget_cut(folder, cut.log)
    return is_same


def note_path(folder: Path, log: str) -> Path:
    """Return where the intention to cut `log` is written down."""
    return folder / f".{log}.rotating.json"


def remember_cut(folder: Path, cut: Cut) -> Cut:
    """Write the intention down, on disk before this returns."""
    write_text_atomic(note_path(folder, cut.log), json.dumps(asdict(cut)))
    return cut


def recall_cut(path: Path) -> Cut:
    """Return the cut that a killed run wrote down at `path`. Raises `StorageError` where it cannot
    be read."""
    with storage_errors(f"read {path.name}"):
        try:
            return Cut(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise StorageError(f"{path.name}: cannot be read: {error}") from error


def forget_cut(folder: Path, log: str) -> None:
    """Remove the intention to cut `log`."""
    note_path(folder, log).unlink(missing_ok=True)


def _mark(folder: Path, descriptor: int, cut: Cut) -> Cut:
    """Overwrite archived bytes: the first ones with the mark, those a collapse leaves with blanks.

    Not before the archive is on disk, and the front is not taken off before this is.
    """
    if cut.marked:
        return cut
    os.pwrite(descriptor, cut.mark.encode(), 0)
    if cut.way == "collapse" and cut.archived_to > cut.removes:
        blanks = b" " * (cut.archived_to - cut.removes - 1) + b"\n"
        os.pwrite(descriptor, blanks, cut.removes)
    os.fsync(descriptor)
    return remember_cut(folder, replace(cut, marked=True))


def _take_off(folder: Path, descriptor: int, cut: Cut) -> None:
    """Take the front off, unless a killed run did it, so that its mark is gone."""
    if os.pread(descriptor, _MARK_BYTES, 0) == cut.mark.encode():
        if cut.way == "collapse":
            collapse_front(descriptor, cut.removes)
        else:
            _copy_tail_and_truncate(folder, descriptor, cut)


def _copy_tail_and_truncate(folder: Path, descriptor: int, cut: Cut) -> None:
    tail = os.open(folder / cut.tail, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        at = cut.archived_to + os.fstat(tail).st_size
        at = _catch_up(descriptor, tail, at)
        os.fsync(tail)
        at = _catch_up(descriptor, tail, at)
        for _ in range(_LINE_TRIES):
            if at == 0 or os.pread(descriptor, 1, at - 1) == b"\n":
                break
            at = _catch_up(descriptor, tail, at)  # a line is being written this very moment
        os.ftruncate(descriptor, 0)
        empty = os.fstat(tail).st_size == 0
    finally:
        os.close(tail)
    if empty:
        (folder / cut.tail).unlink()


def _catch_up(descriptor: int, tail: int, at: int) -> int:
    while chunk := os.pread(descriptor, _CHUNK_BYTES, at):
        at += os.write(tail, chunk)
    return at


def _digest_head(descriptor: int, size: int) -> str:
    """Digest of the first block behind the place of the mark."""
    return sha256_bytes(os.pread(descriptor, min(size, _HEAD_BYTES) - _MARK_BYTES, _MARK_BYTES))


def _is_same(descriptor: int, cut: Cut) -> bool:
    """Whether the file still begins with what was archived; an inode's number is used again."""
    long_enough = os.fstat(descriptor).st_size >= cut.archived_to
    return long_enough and _digest_head(descriptor, cut.archived_to) == cut.head


def _last_line_end(descriptor: int, size: int) -> int:
    """Where the last whole line ends; `size` where there is no line end in the last MiB."""
    start = max(0, size - _CHUNK_BYTES)
    found = os.pread(descriptor, size - start, start).rfind(b"\n")
    return start + found + 1 if found >= 0 else size
