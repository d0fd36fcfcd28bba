"""uvicorn's HTTP protocol with bounds: on bytes that are no body, on time, on places.

Whatever the grammar of HTTP allows beside a body (empty lines, an address, headers, the framing of
chunks, trailers, requests in line behind the one under way) is one count: bytes received less
bytes of a body.
"""

import asyncio
import logging
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from opslib.serving.connections import SLOT, Connections, JoinedWrites, Slot
from opslib.serving.logs import CAUSED_OUTSIDE

MAX_OVERHEAD_BYTES = 64 * 1024
MAX_HEADER_FIELDS = 100
MAX_ADDRESS_BYTES = 8 * 1024
MAX_IN_LINE = 4
PIECE_BYTES = 256  # what handling one more chunk costs, as bytes that are no body
HEADER_TIMEOUT_S = 10.0
MAX_DISCARDED_BYTES = 64 * 1024 * 1024
MAX_UNREAD_BYTES = 16 * 1024
READ_BYTES = 64 * 1024

_TOO_LARGE = "The request's headers are too large."

_log = logging.getLogger(CAUSED_OUTSIDE)


class _RefusedError(Exception):
    """A request that is not handed to the application; raised inside the parser."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses endless or slow requests, and hangs up on a client that sends on after its answer.

    A body that was refused is read to its end and thrown away, so that an honest client gets to
    read the answer; past `MAX_DISCARDED_BYTES` the connection is closed.
    """

    places: Connections
    body_timeout_s = 30.0
    transport: JoinedWrites  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._overhead_bytes = 0
        self._received_bytes = 0
        self._body_bytes = 0
        self._pieces = 0
        self._discarded_bytes = 0
        self._in_headers = False
        self._complete = True
        self._timer: asyncio.TimerHandle | None = None
        self._slot: Slot

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place and wait for the first request as long as for a further one."""
        self._slot = self.places.enter(transport)
        transport.set_write_buffer_limits(MAX_UNREAD_BYTES)
        # Of asyncio's 256 KiB a read, much stays in the heap as holes when many send at once.
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]
        super().connection_made(JoinedWrites(transport))  # type: ignore[arg-type]
        self.headers = []
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back and stop waiting."""
        self._slot.leave()
        self._stop_waiting()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self.transport.lose()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, count what was no body, and time what is still to come."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._received_bytes = len(data)
        self._body_bytes = self._pieces = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False
            self.transport.pause_reading()  # what follows is in a language not spoken here
        except httptools.HttpParserError as error:
            known = isinstance(error.__context__, _RefusedError)
            self._refuse(str(error.__context__) if known else "Invalid HTTP request received.")
            return
        self._overhead_bytes = max(0, self._unpaid_bytes()) + len(data) - self._body_bytes
        if self._overhead_bytes > MAX_OVERHEAD_BYTES:
            self._refuse(_TOO_LARGE)
        else:
            self._watch()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that has sent a whole request and sends no more, then close."""
        if not self._complete or self._is_answered():
            return False
        self.cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        """Begin another request on this connection."""
        super().on_message_begin()
        self.scope["state"][SLOT] = self._slot
        self._discarded_bytes = 0
        self._in_headers = True
        self._complete = False
        self._stop_waiting()
        if self._is_answered():
            self._slot.doubt()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, or count a trailer."""
        if len(self.headers) >= MAX_HEADER_FIELDS:
            raise _RefusedError(_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application; its body has a time of its own."""
        if len(self.url) > MAX_ADDRESS_BYTES or self._head_bytes() > MAX_OVERHEAD_BYTES:
            raise _RefusedError(_TOO_LARGE)
        if len(self.pipeline) >= MAX_IN_LINE:
            raise _RefusedError("Too many requests without waiting for an answer.")
        self._in_headers = False
        self._stop_waiting()
        super().on_headers_complete()
        self.headers = []  # trailers are no headers

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._complete = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Send what is left of an answer without a body, and let go of a body nobody read."""
        self.transport.flush()
        if self._is_answered():
            self.cycle.body.clear()
            self._overhead_bytes = 0
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Pass the body on, or throw it away where the answer is already sent."""
        self._pieces += 1
        if not self.pipeline:  # a body in line is nobody's yet
            self._body_bytes += len(body)
        if self._unpaid_bytes() > MAX_OVERHEAD_BYTES:
            raise _RefusedError("The request's chunks are too small.")
        if not self.cycle.response_complete:
            super().on_body(body)
            return
        self._discarded_bytes += len(body)
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.transport.close()

    def pause_writing(self) -> None:
        """Wait for a client that does not read its answers."""
        super().pause_writing()
        self._stop_waiting()
        self._watch()

    def resume_writing(self) -> None:
        """Wait for it no longer: it has read."""
        super().resume_writing()
        self._stop_waiting()
        self._watch()

    def _is_answered(self) -> bool:
        """Whether no request is with the application."""
        return self.cycle is None or self.cycle.response_complete

    def _unpaid_bytes(self) -> int:
        """What came before, and the pieces that came now, less what came of a body now."""
        return self._overhead_bytes + PIECE_BYTES * max(0, self._pieces - 1) - self._body_bytes

    def _head_bytes(self) -> int:
        """Bytes of the address and the headers; counted only where they can be too many."""
        if self._overhead_bytes + self._received_bytes <= MAX_OVERHEAD_BYTES:
            return 0
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _refuse(self, message: str) -> None:
        """Answer 400 where no other answer is under way, and close."""
        _log.warning("a request was refused: %s", message)
        if self._is_answered() or not self.cycle.response_started:
            self.send_400_response(message)
        else:
            self.transport.abort()

    def _watch(self) -> None:
        """Bound the time for the client's next step, where it is the client's turn."""
        if self.flow.write_paused:
            timeout_s = self.body_timeout_s
        elif not self._complete:
            timeout_s = HEADER_TIMEOUT_S if self._in_headers else self.body_timeout_s
        elif self._is_answered():
            timeout_s = self.timeout_keep_alive
        else:
            self._stop_waiting()
            return
        if self._timer is None:
            self._timer = self.loop.call_later(timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        """End a connection whose client did not go on in time."""
        self._timer = None
        if self.flow.write_paused:
            self.transport.abort()
        elif self._complete or self._is_answered() or self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse("The request did not arrive in time.")
