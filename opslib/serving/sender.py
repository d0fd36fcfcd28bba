"""Sending finished HTTP requests as cheaply as a load generator must.

A general client takes one to two milliseconds of a core for a request, which it adds to every
latency it measures, and takes from the service beside it on a small host. This one writes bytes
that were made beforehand and notes when the last byte of the answer came; parsing is httptools'.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

# Below the servers' five seconds, so that no request meets a closing connection.
KEEPALIVE_S = 2.0


@dataclass
class RawAnswer:
    """An answer as it came; `sent_s` and `received_s` are of `time.perf_counter`."""

    sent_s: float
    received_s: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def join_request(url: str, route: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a whole POST request as the bytes to write."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path.rstrip('/')}{route} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self.used_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer = RawAnswer(0.0)
        self._parts: list[bytes] = []
        self._done: asyncio.Future[RawAnswer] | None = None

    async def ask(self, request: bytes, timeout_s: float) -> RawAnswer:
        if self._transport is None:
            raise ConnectionResetError("not connected")
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        self._parts = []
        self._answer = RawAnswer(sent_s=time.perf_counter())
        self._transport.write(request)
        late = TimeoutError(f"no answer in {timeout_s:g} s")
        timer = loop.call_later(timeout_s, self._fail, late)
        try:
            return await self._done
        finally:
            timer.cancel()

    def abort(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionResetError(f"connection closed before the answer: {exc or 'by peer'}"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ValueError(f"no HTTP answer: {error}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        answer = self._answer
        answer.received_s = self.used_s = time.perf_counter()
        answer.status = self._parser.get_status_code()
        if answer.status < 200:
            return
        answer.body = b"".join(self._parts)
        self.is_open = self.is_open and self._parser.should_keep_alive()
        if not self.is_open and self._transport is not None:
            self._transport.close()
        if self._done is not None and not self._done.done():
            self._done.set_result(answer)

    def _fail(self, error: Exception) -> None:
        self.abort()
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class Sender:
    """Up to `connections` keep-alive ones to one service, the one used last taken first; further
    requests wait. `timeout_s` is from connecting to the last byte of an answer."""

    def __init__(self, url: str, connections: int, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._timeout_s = timeout_s
        self._free = connections
        self._idle: list[_Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def open(self, count: int) -> None:
        """Open so many connections for the requests to come; where one fails, they will say so."""
        with suppress(OSError):
            for _ in range(min(count, self._free)):
                connection = await self._connect()
                connection.used_s = time.perf_counter()
                self._idle.append(connection)

    async def send(self, request: bytes) -> RawAnswer:
        """Send the bytes of a request and return its answer; an `OSError` where the connection
        failed or no answer came in time, a `ValueError` where what came is no HTTP answer."""
        while self._free == 0:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._free -= 1
        try:
            connection = self._take_idle() or await self._connect()
            answer = await connection.ask(request, self._timeout_s)
            if connection.is_open:
                self._idle.append(connection)
            return answer
        finally:
            self._free += 1
            while self._waiting:
                turn = self._waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
                    break

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().abort()

    def _take_idle(self) -> _Connection | None:
        oldest = time.perf_counter() - KEEPALIVE_S
        while self._idle and (not self._idle[0].is_open or self._idle[0].used_s < oldest):
            self._idle.pop(0).abort()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout_s):
            _, connection = await loop.create_connection(
                _Connection, self._host, self._port, ssl=self._tls
            )
        return connection
