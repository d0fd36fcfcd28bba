"""The files of a host that is reached by SFTP, as `Store` asks for them: by the names that fsspec's
file systems have for it."""

import errno
import io
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any

from opslib.core.sftp import (
    CREATE,
    READ,
    SYNC_TIMEOUT_S,
    TIMES,
    TRUNCATE,
    WRITE,
    Ask,
    Connection,
    Facts,
    has_room,
    list_folder,
    read_pieces,
    write_pieces,
)
from opslib.core.store_address import SshHost

AT_ONCE = 8  # folders that are listed
_CHUNK_BYTES = 1 << 22


class SftpFiles:
    """The files of one host, over one connection that is made when it is needed, and made again
    after it broke. Every method raises `OSError` where the host refuses or cannot be reached."""

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self._connecting = threading.Lock()
        self._open: list[Connection] = []  # one, or none yet
        weakref.finalize(self, _close_all, self._open)

    def find(self, top: str, **_: object) -> dict[str, dict[str, Any]]:
        """Return every file below a folder, of which none need be there, with its `size` and its
        `mtime`. A link to a file is one; a link to a folder is not followed."""
        found, folders = {}, [top]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while folders:
                listed = [one for some in pool.map(self._list, folders) for one in some]
                folders = [path for path, facts in listed if S_ISDIR(facts.mode)]
                for path, facts in listed:
                    if S_ISREG(facts.mode):
                        found[path] = {"size": facts.size, "mtime": facts.mtime}
        return found

    def ls(self, folder: str, **_: object) -> list[str]:
        """Return the paths of what lies in a folder."""
        return [path for path, _ in self._list(folder)]

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder."""
        return self._stat(path) is not None

    def open(self, path: str) -> "_SftpFile":
        """Return a file to read."""
        return _SftpFile(self._connection(), os.fsencode(path))

    def cat_file(self, path: str) -> bytes:
        """Return the bytes of a file."""
        with self.open(path) as file:
            return file.read(file.size) or b""

    def get_file(self, path: str, local: str) -> None:
        """Write the bytes of a file into one of this host."""
        with self.open(path) as file, Path(local).open("wb") as target:
            while chunk := file.read(_CHUNK_BYTES):
                target.write(chunk)

    def pipe_file(self, path: str, data: bytes) -> None:
        """Give a file these bytes."""
        self._write(path, [data])

    def put_file(self, local: str, path: str) -> None:
        """Give a file the bytes of one of this host."""
        with Path(local).open("rb", buffering=0) as source:
            self._write(path, iter(lambda: source.read(_CHUNK_BYTES), b""))

    def rm_file(self, path: str) -> None:
        """Delete a file."""
        self._connection().ask(Ask.REMOVE, os.fsencode(path))

    def makedirs(self, path: str, **_: object) -> None:
        """Make a folder and those around it."""
        facts = self._stat(path)
        if facts is None:
            self.makedirs(str(PurePosixPath(path).parent))
            try:
                self._connection().ask(Ask.MKDIR, os.fsencode(path), 0)
            except OSError:
                facts = self._stat(path)  # another host was faster
                if facts is None:
                    raise
        if facts is not None and not S_ISDIR(facts.mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def replace(self, path: str, target: str) -> None:
        """Give a file another name, over what has it.

        SFTP dates a file in whole seconds. So it is dated at least one after what it replaces: by
        date and size one is told from the other.
        """
        connection, old, new = self._connection(), os.fsencode(path), os.fsencode(target)
        if b"posix-rename@openssh.com" not in connection.offers:
            raise OSError(errno.EOPNOTSUPP, "its SFTP server cannot replace a file in one step")
        if (before := self._stat(target)) is not None:
            if S_ISDIR(before.mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if connection.ask(Ask.STAT, old).facts().mtime <= before.mtime:
                later = before.mtime + 1
                connection.ask(Ask.SETSTAT, old, TIMES, later, later)
        connection.ask(Ask.EXTENDED, b"posix-rename@openssh.com", old, new)

    def _connection(self) -> Connection:
        with self._connecting:
            if not (self._open and self._open[0].is_alive):
                self._open[:] = [Connection(self._host)]
            return self._open[0]

    def _stat(self, path: str) -> Facts | None:
        try:
            return self._connection().ask(Ask.STAT, os.fsencode(path)).facts()
        except FileNotFoundError:
            return None

    def _list(self, folder: str) -> list[tuple[str, Facts]]:
        try:
            listed = list(list_folder(self._connection(), os.fsencode(folder)))
        except FileNotFoundError:  # none there, or deleted meanwhile
            return []
        found = []
        for name, said in listed:
            path, facts = f"{folder}/{os.fsdecode(name)}", said
            if S_ISLNK(said.mode):
                aimed = self._stat(path)
                facts = aimed if aimed is not None and S_ISREG(aimed.mode) else said
            found.append((path, facts))
        return found

    def _write(self, path: str, data: Iterable[bytes]) -> None:
        connection, name = self._connection(), os.fsencode(path)
        with _telling_of_full_disks(connection, PurePosixPath(path).parent):
            handle = connection.ask(Ask.OPEN, name, WRITE | CREATE | TRUNCATE, 0).text()
            try:
                write_pieces(connection, handle, data)
                if b"fsync@openssh.com" in connection.offers:
                    synced = connection.send(Ask.EXTENDED, b"fsync@openssh.com", handle)
                    connection.wait(synced, SYNC_TIMEOUT_S)
            except BaseException:
                connection.send(Ask.CLOSE, handle)
                raise
            connection.ask(Ask.CLOSE, handle)


class _SftpFile(io.RawIOBase):
    """A file of the host that is read, many requests at a time."""

    def __init__(self, connection: Connection, path: bytes) -> None:
        self._connection = connection
        self._handle = connection.ask(Ask.OPEN, path, READ, 0).text()
        self.size = connection.ask(Ask.FSTAT, self._handle).facts().size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self.size - self._at)]
        count = read_pieces(self._connection, self._handle, self._at, view)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            self._connection.send(Ask.CLOSE, self._handle)
        super().close()


@contextmanager
def _telling_of_full_disks(connection: Connection, folder: PurePosixPath) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO and not has_room(connection, os.fsencode(folder)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def _close_all(connections: list[Connection]) -> None:
    for one in connections:
        one.close()
