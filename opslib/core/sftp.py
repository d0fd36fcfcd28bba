"""SFTP, version 3, spoken with a server through the `ssh` of this host.

Many requests may be under way at once: each answer has the number of its request.
"""

import errno
import os
import socket
import struct
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from enum import IntEnum
from typing import IO, NamedTuple

from opslib.core.formatting import shorten
from opslib.core.ssh import command_for, explain_end
from opslib.core.store_address import SshHost
from opslib.core.store_errors import READ_TIMEOUT_S

VERSION = 3
PIECE_BYTES = 1 << 15  # what every server takes in one request
UNDER_WAY = 64  # requests of one writer
ANSWER_BYTES = 1 << 18  # at most, as OpenSSH has it
SYNC_TIMEOUT_S = 600  # a large file may have to reach a slow disk
FULL_BYTES = 1 << 20  # a disk with less is taken for full where a write failed
# How a file is opened, and what is said of one.
READ, WRITE, CREATE, TRUNCATE = 0x01, 0x02, 0x08, 0x10
TIMES = 0x8
_SIZE, _OWNER, _MODE, _EXTENDED = 0x1, 0x2, 0x4, 0x8000_0000


class Ask(IntEnum):
    """What is asked of a server."""

    INIT = 1
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    FSTAT = 8
    SETSTAT = 9
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    STAT = 17
    EXTENDED = 200


_STATUS = 101
_OK, _END, _NO_FILE, _DENIED = range(4)
_ERRORS = {_NO_FILE: errno.ENOENT, _DENIED: errno.EACCES}


class Facts(NamedTuple):
    """What a server says of a file: its size, its type and rights, and when it was changed, in
    whole seconds since the epoch."""

    size: int
    mode: int
    mtime: int


class Answer:
    """The bytes of an answer, taken from its start on."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, form: str = ">I") -> int:
        """Return the next number: 32 bits of it, or 64 with `>Q`."""
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def text(self) -> bytes:
        """Return the next text."""
        length = self.number()
        self._at += length
        return self._data[self._at - length : self._at]

    def texts(self) -> dict[bytes, bytes]:
        """Return the pairs of texts up to the end."""
        found = {}
        while self._at < len(self._data):
            name = self.text()
            found[name] = self.text()
        return found

    def facts(self) -> Facts:
        """Return the next description of a file."""
        size = mode = mtime = 0
        flags = self.number()
        if flags & _SIZE:
            size = self.number(">Q")
        if flags & _OWNER:
            self.number(">Q")
        if flags & _MODE:
            mode = self.number()
        if flags & TIMES:
            mtime = self.number(">Q") & 0xFFFF_FFFF  # when it was read stands before
        if flags & _EXTENDED:
            for _ in range(2 * self.number()):
                self.text()
        return Facts(size, mode, mtime)


class Connection:
    """A conversation with a server, which threads may share. Whatever the server or the network
    refuses is an `OSError` that says why."""

    def __init__(self, host: SshHost) -> None:
        self._near, far = socket.socketpair()
        self._near.settimeout(READ_TIMEOUT_S)
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as ssh
        with far:
            self._ssh = subprocess.Popen(
                command_for(host),
                stdin=far.fileno(),
                stdout=far.fileno(),
                stderr=self._said,
                start_new_session=True,  # Ctrl-C lets us clean up first
            )
        self._waiting: dict[int, Future[Answer]] = {}
        self._sending = threading.Lock()
        self._number = VERSION
        self._ended = ""
        threading.Thread(target=self._listen, name="sftp", daemon=True).start()
        # The answer to this one has the version where others have their number.
        answer = self._send(Ask.INIT, VERSION, b"")
        self.offers = frozenset(self.wait(answer).texts())

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._ended

    def ask(self, kind: Ask, *parts: int | bytes) -> Answer:
        """Return the answer to a request: a text is sent with its length, a number in 32 bits."""
        return self.wait(self.send(kind, *parts))

    def send(self, kind: Ask, *parts: int | bytes) -> Future[Answer]:
        """Send a request and return at once; `wait` for its answer."""
        body = b"".join(
            struct.pack(">I", one) if isinstance(one, int) else struct.pack(">I", len(one)) + one
            for one in parts
        )
        return self._send(kind, None, body)

    def wait(self, answer: "Future[Answer]", seconds: float = READ_TIMEOUT_S) -> Answer:
        """Return an answer when it has come; whoever gives none in time is not asked again."""
        try:
            return answer.result(seconds)
        except TimeoutError:
            self.close(f"gave no answer within {seconds:g} s")
            return answer.result(0)

    def close(self, reason: str = "the connection was closed") -> None:
        """End it; all that is under way fails for this reason."""
        self._ended = self._ended or reason
        with suppress(OSError):
            self._near.shutdown(socket.SHUT_RDWR)
        self._ssh.kill()
        self._ssh.wait()
        while self._waiting:
            with suppress(KeyError):
                _, answer = self._waiting.popitem()
                answer.set_exception(OSError(errno.ECONNABORTED, self._ended))

    def _send(self, kind: Ask, number: int | None, body: bytes) -> "Future[Answer]":
        answer: Future[Answer] = Future()
        with self._sending:
            if number is None:
                self._number = number = (self._number + 1) % (1 << 32)
            self._waiting[number] = answer
            if not self._ended:
                head = struct.pack(">IBI", len(body) + 5, kind, number)
                try:
                    self._near.sendall(head + body)
                except TimeoutError:
                    self.close(f"took nothing within {READ_TIMEOUT_S} s")
                except OSError:
                    self._break_off()
        if self._ended and self._waiting.pop(number, None) is not None:
            answer.set_exception(OSError(errno.ECONNABORTED, self._ended))
        return answer

    def _listen(self) -> None:
        try:
            while True:
                length, kind, number = struct.unpack(">IBI", self._receive(9))
                if not 5 <= length <= ANSWER_BYTES:
                    self.close("what it sends is no SFTP; expected no text when a program logs in")
                    return
                data = self._receive(length - 5)
                if (answer := self._waiting.pop(number, None)) is None:
                    continue
                try:
                    answer.set_result(_check(kind, data))
                except (OSError, EOFError, struct.error) as error:
                    answer.set_exception(error)
        except (EOFError, OSError):
            self._break_off()

    def _receive(self, count: int) -> bytes:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            try:
                got = self._near.recv_into(view)
            except TimeoutError:  # who waits for an answer gives up himself
                continue
            if not got:
                raise EOFError
            view = view[got:]
        return bytes(data)

    def _break_off(self) -> None:
        """Close it for the reason that ssh gives."""
        if not self._ended:
            with suppress(subprocess.TimeoutExpired):
                self._ssh.wait(1)
            said = os.pread(self._said.fileno(), 1 << 16, 0)
            self.close(explain_end(said.decode(errors="replace")))


def read_pieces(connection: Connection, handle: bytes, start: int, buffer: memoryview) -> int:
    """Fill `buffer` with the bytes of an open file from `start` on, in many requests at once, and
    return how many there were."""
    offsets = range(0, len(buffer), PIECE_BYTES)
    pieces = [
        connection.send(Ask.READ, handle, *_split(start + at), min(PIECE_BYTES, len(buffer) - at))
        for at in offsets
    ]
    for at, piece in zip(offsets, pieces, strict=True):
        wanted = min(PIECE_BYTES, len(buffer) - at)
        filled = 0
        while filled < wanted:
            try:
                data = connection.wait(piece).text()
            except EOFError:
                return at + filled
            if not data:
                return at + filled
            buffer[at + filled : at + filled + len(data)] = data
            filled += len(data)
            if filled < wanted:  # a server may answer with less
                rest = _split(start + at + filled)
                piece = connection.send(Ask.READ, handle, *rest, wanted - filled)
    return len(buffer)


def write_pieces(connection: Connection, handle: bytes, data: Iterable[bytes]) -> None:
    """Write `data` into an open file from its start on, in many requests at once."""
    under_way: deque[Future[Answer]] = deque()
    at = 0
    for piece in _cut(data):
        under_way.append(connection.send(Ask.WRITE, handle, *_split(at), piece))
        at += len(piece)
        if len(under_way) == UNDER_WAY:
            connection.wait(under_way.popleft())
    for answer in under_way:
        connection.wait(answer)


def list_folder(connection: Connection, folder: bytes) -> Iterator[tuple[bytes, Facts]]:
    """Yield what lies in a folder: each name, and what is said of it, of links themselves."""
    handle = connection.ask(Ask.OPENDIR, folder).text()
    try:
        while True:
            both = [connection.send(Ask.READDIR, handle) for _ in range(2)]
            for one in both:
                answer = connection.wait(one)
                for _ in range(answer.number()):
                    name, _ = answer.text(), answer.text()
                    facts = answer.facts()
                    if name not in (b".", b".."):
                        yield name, facts
    except EOFError:
        return
    finally:
        connection.send(Ask.CLOSE, handle)


def has_room(connection: Connection, folder: bytes) -> bool:
    """Return whether the disk that a folder lies on has room, as far as its server says."""
    if b"statvfs@openssh.com" not in connection.offers:
        return True
    answer = connection.ask(Ask.EXTENDED, b"statvfs@openssh.com", folder)
    _, unit, _, _, free, files, _, free_files, *_ = (answer.number(">Q") for _ in range(11))
    return free * unit >= FULL_BYTES and (free_files > 0 or not files)


def _check(kind: int, data: bytes) -> Answer:
    answer = Answer(data)
    if kind != _STATUS:
        return answer
    code = answer.number()
    if code == _OK:
        return answer
    if code == _END:
        raise EOFError
    if code in _ERRORS:
        raise OSError(_ERRORS[code], os.strerror(_ERRORS[code]))
    text = shorten(answer.text().decode(errors="replace"), 100)
    raise OSError(errno.EIO, f"the server names no reason but {text!r}")


def _split(offset: int) -> tuple[int, int]:
    """A number of 64 bits as two of 32."""
    return offset >> 32, offset & 0xFFFF_FFFF


def _cut(data: Iterable[bytes]) -> Iterator[bytes]:
    for block in data:
        for at in range(0, len(block), PIECE_BYTES):
            yield block[at : at + PIECE_BYTES]
