"""A file layer that can fail: a process dies before, or in the middle of, any file operation below
a folder; and a disk is full.

Death is no error: it passes every handler, and whatever the dead process still tries in its
`finally` blocks raises it again, so that nothing is tidied up. What lay in its buffers is lost, its
locks are free. Syncing does nothing here: after SIGKILL the kernel keeps what was written.
"""

from __future__ import annotations

import builtins
import errno
import gc
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_DESCRIPTORS = Path("/proc/self/fd")
_OPEN = io.open
_NAMES = ("unlink", "remove", "rmdir", "truncate", "ftruncate", "utime", "chmod", "fchmod")
_OWNERS = ("chown", "fchown")
_NEW = ("mkdir",)
_PAIRS = ("rename", "replace", "link", "symlink")
_BYTES = ("write", "writev", "pwrite", "pwritev", "sendfile", "copy_file_range")
_SYNCS = ("fsync", "fdatasync")
_REAL: dict[str, Any] = {
    name: getattr(os, name)
    for name in ("open", *_NAMES, *_OWNERS, *_NEW, *_PAIRS, *_BYTES, *_SYNCS)
}
_ALLOCATING = frozenset({"create", "mkdir", "link", "symlink", "bytes"})


class Death(BaseException):
    """The process was killed here."""


@dataclass
class Process:
    """One life: what it did to files below the root, and where it dies or finds the disk full.

    `dies_at` and `full_from` count operations from 0; `torn` lets a death in the middle of
    writing leave the first half.
    """

    dies_at: int | None = None
    full_from: int | None = None
    torn: bool = False
    dead: bool = False
    done: list[tuple[str, str]] = field(default_factory=list)

    def step(self, kind: str, path: str) -> None:
        """Count one operation that is about to happen; die or run out of room there."""
        self.check_alive()
        number = len(self.done)
        self.done.append((kind, path))
        if number == self.dies_at:
            self.dead = True
            raise Death(f"at operation {number}: {kind} {path}")
        if self.full_from is not None and number >= self.full_from and kind in _ALLOCATING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def check_alive(self) -> None:
        """Refuse everything to a process that died."""
        if self.dead:
            raise Death("it is dead already")


@dataclass(frozen=True)
class FileLayer:
    """The files below `root`, whose new content is dated by `date_of(path)` in seconds."""

    root: Path
    date_of: Callable[[str], float]

    @contextmanager
    def process(
        self, *, dies_at: int | None = None, full_from: int | None = None, torn: bool = False
    ) -> Iterator[Process]:
        """Run the block as a process of its own; its death ends the block, no more."""
        life = Process(dies_at, full_from, torn)
        before = set(self._descriptors())
        with mock.patch.multiple(os, **self._operations(life)):
            opened = self._make_open(life)
            with mock.patch.object(io, "open", opened), mock.patch.object(builtins, "open", opened):
                try:
                    yield life
                except BaseException:  # a dead process says nothing, whatever it stumbled over
                    if not life.dead:
                        raise
        if life.dead:
            self._close_descriptors(before)

    def _operations(self, life: Process) -> dict[str, Any]:
        made: dict[str, Any] = {name: self._on_one(life, name) for name in (*_NAMES, *_OWNERS)}
        made |= {name: self._on_one(life, name) for name in _NEW}
        made |= {name: self._on_two(life, name) for name in _PAIRS}
        made |= {name: self._on_bytes(life, name) for name in _BYTES}
        made |= {name: self._on_sync(life, name) for name in _SYNCS}
        return made | {"open": self._on_open(life)}

    def _on_one(self, life: Process, name: str) -> Callable[..., Any]:
        def operation(path: Any, *args: Any, **kwargs: Any) -> Any:
            where = self.find(path, kwargs.get("dir_fd"))
            if where is not None:
                life.step(name, where)
            return _REAL[name](path, *args, **kwargs)

        return operation

    def _on_two(self, life: Process, name: str) -> Callable[..., Any]:
        def operation(source: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            where = self.find(target, kwargs.get("dst_dir_fd") or kwargs.get("dir_fd"))
            if where is None and name in ("rename", "replace"):
                where = self.find(source, kwargs.get("src_dir_fd"))
            if where is not None:
                life.step(name, where)
            return _REAL[name](source, target, *args, **kwargs)

        return operation

    def _on_bytes(self, life: Process, name: str) -> Callable[..., Any]:
        def operation(descriptor: int, *args: Any, **kwargs: Any) -> Any:
            target = args[0] if name == "copy_file_range" else descriptor
            where = self.find(target)
            if where is None:
                return _REAL[name](descriptor, *args, **kwargs)
            life.step("bytes", where)
            written = _REAL[name](descriptor, *args, **kwargs)
            self._date(target, where)
            return written

        return operation

    def _on_sync(self, life: Process, name: str) -> Callable[[Any], None]:
        def operation(file: Any) -> None:
            if self.find(file) is None:
                _REAL[name](file)
            else:
                life.check_alive()

        return operation

    def _on_open(self, life: Process) -> Callable[..., int]:
        def operation(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            where = self.find(path, kwargs.get("dir_fd"))
            if where is None:
                return int(_REAL["open"](path, flags, *args, **kwargs))
            kind = self._announce_open(life, where, flags)
            descriptor = int(_REAL["open"](path, flags, *args, **kwargs))
            if kind == "create" or flags & os.O_TRUNC:
                self._date(descriptor, where)
            return descriptor

        return operation

    def _announce_open(self, life: Process, where: str, flags: int) -> str:
        """Count an opening that can change something; return what kind of one it is."""
        kind = "read"
        if flags & _WRITES:
            kind = "create" if flags & os.O_CREAT and not os.path.lexists(where) else "open"
            life.step(kind, where)
        life.check_alive()
        return kind

    def _make_open(self, life: Process) -> Callable[..., Any]:
        def opened(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            where = self.find(file)
            if where is None:
                return _OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
            life.check_alive()
            plain = mode.replace("b", "").replace("t", "")
            if plain == "r":
                return _OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if not isinstance(file, int) and opener is None:
                flags = os.O_WRONLY | (0 if plain[0] == "r" else os.O_CREAT)
                self._announce_open(life, where, flags)
            raw = _Raw(file, plain, closefd, opener)
            where = self.find(raw.fileno()) or where
            raw.life, raw.where, raw.layer = life, where, self
            self._date(raw.fileno(), where)
            if "b" in mode and buffering == 0:
                return raw
            updating = "+" in mode
            buffer = io.BufferedRandom(raw) if updating else io.BufferedWriter(raw)
            if "b" in mode:
                return buffer
            return io.TextIOWrapper(buffer, encoding, errors, newline)

        return opened

    def find(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the root that an operation means, or None where it lies elsewhere."""
        try:
            if hasattr(path, "fileno"):
                path = path.fileno()
            if isinstance(path, int):
                found = _DESCRIPTORS.joinpath(str(path)).readlink()
            else:
                folder = _DESCRIPTORS.joinpath(str(dir_fd)).readlink() if dir_fd else Path()
                found = folder / os.fsdecode(path)
        except (OSError, TypeError, ValueError):
            return None
        text = os.path.normpath(found.absolute())
        return text if text.startswith(f"{self.root}/") else None

    def _date(self, descriptor: int, where: str) -> None:
        moment = self.date_of(where)
        _REAL["utime"](descriptor, (moment, moment))

    def _descriptors(self) -> Iterator[int]:
        """Descriptors that this process has open below the root."""
        for one in list(_DESCRIPTORS.iterdir()):
            if self.find(int(one.name)) is not None:
                yield int(one.name)

    def _close_descriptors(self, before: set[int]) -> None:
        """What the kernel does for a dead process: it closes its files, which frees its locks."""
        for generation in (1, 2):
            if set(self._descriptors()) - before:
                gc.collect(generation)
        for descriptor in set(self._descriptors()) - before:
            os.close(descriptor)


class _Raw(io.FileIO):
    """A file that is written to: each write is an operation of the process that opened it."""

    life: Process
    where: str
    layer: FileLayer

    def write(self, data: Any) -> int:
        if self.life.dead:
            return len(data)  # what a dead process had in its buffers never arrives
        try:
            self.life.step("bytes", self.where)
        except Death:
            if self.life.torn:
                super().write(bytes(data)[: len(data) // 2])
                self.layer._date(self.fileno(), self.where)
            raise
        written = super().write(data)
        self.layer._date(self.fileno(), self.where)
        return written

    def truncate(self, size: int | None = None) -> int:
        self.life.step("ftruncate", self.where)
        return super().truncate(size)
