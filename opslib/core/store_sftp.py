"""The files of a host that is reached by SFTP: `sshfs` of fsspec, over one connection that is made
when it is needed and again after it broke (`core/ssh.py`).

It has what `Store` asks of fsspec, and `replace`. Ours are a listing that leaves nothing out where
the host refuses, writing that waits for the host's disk, and limits to how long it may be silent.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from stat import S_ISDIR
from typing import Any, BinaryIO

from asyncssh import SFTPFailure, SFTPNoSuchFile, SFTPOpUnsupported
from fsspec.asyn import sync, sync_wrapper
from sshfs import SSHFileSystem
from sshfs.file import SSHFile

from opslib.core.ssh import ANSWER_S, Channel
from opslib.core.store_address import SshHost

AT_ONCE = 8  # folders that are listed
SYNC_TIMEOUT_S = 600  # a large file may have to reach a slow disk
FULL_BYTES = 1 << 20  # a disk with less is taken for full where a write failed
_BLOCK_BYTES = 1 << 20


class SftpFiles(SSHFileSystem):  # type: ignore[misc]  # without types
    """The files of one host. A refusal is an error of asyncssh's or of the system's."""

    cachable = False

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self._looking = asyncio.Semaphore(AT_ONCE)
        super().__init__(host.name)

    def connect(self, *_: object, **__: object) -> tuple[None, Channel]:
        """Return what `sshfs` has for a connection: none yet, and where each request gets it."""
        return None, Channel(self._host)

    def cat_file(self, path: str) -> bytes:
        """Return the bytes of a file."""
        data = BytesIO()
        with self.open(path) as source:
            shutil.copyfileobj(source, data, _BLOCK_BYTES)
        return data.getvalue()

    def get_file(self, path: str, local: str) -> None:
        """Write the bytes of a file into one of this host."""
        with self.open(path) as source, Path(local).open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK_BYTES)

    def put_file(self, local: str, path: str) -> None:
        """Give a file the bytes of one of this host."""
        with Path(local).open("rb") as source:
            self._write(path, source)

    def pipe_file(self, path: str, data: bytes) -> None:
        """Give a file these bytes."""
        self._write(path, BytesIO(data))

    def makedirs(self, path: str, exist_ok: bool = True) -> None:
        """Make a folder and those around it."""
        try:
            kind = self.info(path)["type"]
        except FileNotFoundError:
            super().makedirs(path, exist_ok=exist_ok)
            return
        if kind != "directory":
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _open(self, path: str, mode: str = "rb", **_: object) -> "_File":
        return _File(self, path, mode)

    def _write(self, path: str, source: BinaryIO) -> None:
        try:
            with self.open(path, "wb") as file:
                shutil.copyfileobj(source, file, _BLOCK_BYTES)
                file.sync()
        except SFTPFailure as error:  # which is all that SFTP says of it
            if self._is_full(str(PurePosixPath(path).parent)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise

    async def _find(self, top: str, **_: object) -> dict[str, dict[str, Any]]:
        """Every file below a folder. A link to a file is one; one to a folder is not followed."""
        found: dict[str, dict[str, Any]] = {}
        folders = [top]
        while folders:
            looked = await asyncio.gather(*map(self._look, folders))
            listed = [one for each in looked for one in each]
            folders = [one["name"] for one in listed if one["type"] == "directory"]
            found |= {one["name"]: one for one in listed if one["type"] == "file"}
        return found

    async def _look(self, folder: str) -> list[dict[str, Any]]:
        async with self._looking:
            try:
                listed: list[dict[str, Any]] = await self._ls(folder)
            except FileNotFoundError:  # deleted meanwhile
                return []
            for one in listed:
                if one["type"] == "link" and (aimed := await self._follow(one["name"])):
                    one |= aimed
        return listed

    async def _follow(self, link: str) -> dict[str, Any]:
        try:
            aimed = await self._info(link)
        except (FileNotFoundError, SFTPFailure):  # it leads nowhere, or round and round
            return {}
        return {**aimed, "name": link} if aimed["type"] == "file" else {}

    async def _replace(self, path: str, target: str) -> None:
        """Give a file another name, over what has it, in one step.

        SFTP dates a file in whole seconds. So it is dated at least one after what it replaces: by
        date and size one is told from the other.
        """
        async with self._pool.get() as sftp:
            try:
                before = await sftp.stat(target)
            except SFTPNoSuchFile:
                pass
            else:
                if S_ISDIR(before.permissions):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                if (await sftp.stat(path)).mtime <= before.mtime:
                    await sftp.utime(path, (before.mtime + 1, before.mtime + 1))
            await sftp.posix_rename(path, target)

    async def _has_no_room(self, folder: str) -> bool:
        async with self._pool.get() as sftp:
            try:
                disk = await sftp.statvfs(folder)
            except SFTPOpUnsupported:
                return False
        return disk.bavail * disk.frsize < FULL_BYTES or (disk.files and not disk.favail)

    replace = sync_wrapper(_replace)
    _is_full = sync_wrapper(_has_no_room)


class _File(SSHFile):  # type: ignore[misc]  # without types
    """An open file of a host, which is not asked again after it was silent for too long."""

    def read(self, size: int = -1) -> bytes:
        return bytes(self._ask(ANSWER_S, self._file.read, size))

    def write(self, data: bytes) -> int:
        return int(self._ask(ANSWER_S, self._file.write, data))

    def sync(self) -> None:
        """Have what was written reach the host's disk, where it can be told to."""
        with suppress(SFTPOpUnsupported):
            self._ask(SYNC_TIMEOUT_S, self._file.fsync)

    def _close(self) -> None:
        if self.writable():
            self._ask(ANSWER_S, self._file.close)
        else:  # not waited for: where a process ends, nobody would answer
            asyncio.run_coroutine_threadsafe(self._file.close(), self.loop)

    def _ask(self, seconds: float, ask: Callable[..., Any], *arguments: object) -> Any:
        async def within() -> Any:
            async with self.fs._pool.within(seconds):
                return await ask(*arguments)

        return sync(self.loop, within)
