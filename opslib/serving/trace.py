"""The outermost layer: a request id, the model's headers on every answer, one log line each."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opslib.serving.failures import answer_crash
from opslib.serving.generations import Generation
from opslib.serving.logs import CAUSED_OUTSIDE, AccessLog

_events = logging.getLogger(CAUSED_OUTSIDE)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SHOWN = 200
GENERATION = "generation"
HAS_KEY = "has_key"


class Trace:
    """ASGI middleware that gives each request an id and writes its access line.

    The line has the path without its query, so that nothing given there is kept. A valid
    `X-Request-ID` of the caller is kept, any other replaced. Of requests without the key only the
    first few a minute have a line each.
    """

    def __init__(
        self, app: ASGIApp, current: Callable[[], Generation | None], log: AccessLog
    ) -> None:
        self._app = app
        self._current = current
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        state["started"] = started
        status, served = 0, None

        async def send_traced(message: Message) -> None:
            nonlocal status, served
            if message["type"] == "http.response.start":
                status = message["status"]
                served = state.get(GENERATION) or self._current()
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id),
                    *_model_headers(served),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        except Exception:
            fields = {"request_id": state["request_id"], "path": scope["path"][:_SHOWN]}
            _events.exception("a request failed", extra={"fields": fields})
            if not status:
                await answer_crash(state["request_id"])(scope, receive, send_traced)
        finally:
            fields = {
                "request_id": state["request_id"],
                "client": scope["client"][0] if scope.get("client") else None,
                "method": scope["method"],
                "path": scope["path"][:_SHOWN],
                "status": status or 500,
                "ms": round((time.perf_counter() - started) * 1000, 2),
                "generation": served.number if served else None,
            }
            if state.get(HAS_KEY):
                self._log.write(fields)
            else:
                self._log.write_sparingly(fields["status"], fields)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return secrets.token_hex(8).encode()


def _model_headers(generation: Generation | None) -> list[tuple[bytes, bytes]]:
    if generation is None:
        return []
    return [
        (b"x-model-sha256", generation.model.sha256.encode()),
        (b"x-generation", str(generation.number).encode()),
    ]
