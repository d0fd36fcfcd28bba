"""A transport that writes an answer in one piece, and does not wait for ever to be read."""

from __future__ import annotations

import asyncio
from typing import Any

LINGER_S = 10.0


class JoinedWrites:
    """A transport that sends an answer's head and body in one packet, hence one system call.

    What a client has not read `LINGER_S` after the connection was closed is dropped.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._timer: asyncio.TimerHandle | None = None

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
        if self._timer is None and self._transport.get_write_buffer_size():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LINGER_S, self._transport.abort)

    def lose(self) -> None:
        """Note that the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
