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
    """Refuses endless or slow headers, and hangs up on a client that sends on after its answer.

    A body that was refused is read to its end and thrown away, so that an honest client gets to
    read the answer; past `MAX_DISCARDED_BYTES` the connection is closed.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._header_bytes = 0
        self._discarded_bytes = 0
        self._in_headers = True
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(JoinedWrites(transport))  # type: ignore[arg-type]
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count header bytes before they are parsed and kept."""
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES + len(data) or (
                self._header_bytes > MAX_HEADER_BYTES and b"\r\n\r\n" not in data
            ):
                self.send_400_response("The request's headers are too large.")
                return
        if not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin another request on this connection."""
        super().on_message_begin()
        self._header_bytes = 0
        self._discarded_bytes = 0
        self._in_headers = True
        if self._header_timer is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        self._in_headers = False
        self._stop_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Send what is left of an answer without a body."""
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Pass the body on, or throw it away where the answer is already sent."""
        if self.cycle.response_complete:
            self._discarded_bytes += len(body)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self.transport.close()
                return
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            return
        super().on_body(body)

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_S, self._hang_up)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _hang_up(self) -> None:
        self._header_timer = None
        if self._in_headers and not self.transport.is_closing():
            self.transport.close()
