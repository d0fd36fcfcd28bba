"""uvicorn's HTTP protocol with bounds: header bytes, time for headers, bytes thrown away."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024
HEADER_TIMEOUT_S = 10.0
MAX_DISCARDED_BYTES = 64 * 1024 * 1024


class JoinedWrites:
    """A transport that sends an answer's head and body in one packet, hence one system call."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        """Be the transport in everything else."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it until the body comes if it is an answer's head."""
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def flush(self) -> None:
        """Send what was kept."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Send what was kept and close."""
        self.flush()
        self._transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """Refuses endless or slow requests, and hangs up on a client that sends on after its answer.

    A body that was refused is read to its end and thrown away, so that an honest client gets to
    read the answer; past `MAX_DISCARDED_BYTES` the connection is closed.
    """

    body_timeout_s = 30.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._header_bytes = 0
        self._discarded_bytes = 0
        self._in_headers = True
        self._complete = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(JoinedWrites(transport))  # type: ignore[arg-type]
        self._await_rest(HEADER_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count header bytes before they are kept, and time whatever is still to come."""
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES + len(data) or (
                self._header_bytes > MAX_HEADER_BYTES and b"\r\n\r\n" not in data
            ):
                self.send_400_response("The request's headers are too large.")
                return
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._complete:
            self._stop_waiting()
        elif self._timer is None:
            self._await_rest(HEADER_TIMEOUT_S if self._in_headers else self.body_timeout_s)

    def on_message_begin(self) -> None:
        """Begin another request on this connection."""
        super().on_message_begin()
        self._header_bytes = 0
        self._discarded_bytes = 0
        self._in_headers = True
        self._complete = False

    def on_headers_complete(self) -> None:
        """Hand the request to the application; its body has a time of its own."""
        self._in_headers = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop waiting: the request is whole."""
        self._complete = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Send what is left of an answer without a body."""
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Pass the body on, or throw it away where the answer is already sent."""
        if not self.cycle.response_complete:
            super().on_body(body)
            return
        self._discarded_bytes += len(body)
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.transport.close()

    def _await_rest(self, timeout_s: float) -> None:
        self._timer = self.loop.call_later(timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        """End a connection whose request did not arrive whole in time."""
        self._timer = None
        if self._complete or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or self.cycle.response_started:
            self.transport.close()
        else:
            self.send_400_response("The request did not arrive in time.")
