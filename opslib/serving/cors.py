"""Cross-origin requests: only the listed front ends; preflights and refusals are logged."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from opslib.serving.keys import HEADER
from opslib.serving.logs import CAUSED_OUTSIDE

_log = logging.getLogger(CAUSED_OUTSIDE)
EXPOSED = ("X-Request-ID", "X-Model-SHA256", "X-Generation", "Retry-After")
_SHOWN = 200


class LoggedCors(CORSMiddleware):
    """Starlette's CORS middleware; a preflight is logged, and so is a refused origin."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=tuple(origins),
            allow_methods=("GET", "POST"),
            allow_headers=(HEADER, "Content-Type"),
            expose_headers=EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass requests without an origin straight on."""
        if scope["type"] == "http" and all(name != b"origin" for name, _ in scope["headers"]):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a preflight, and log it."""
        response = super().preflight_response(request_headers)
        allowed = response.status_code == 200
        _log.log(
            logging.INFO if allowed else logging.WARNING,
            "CORS preflight %s",
            "allowed" if allowed else "refused",
            extra={
                "fields": {
                    "origin": request_headers["origin"][:_SHOWN],
                    "method": request_headers["access-control-request-method"][:_SHOWN],
                    "allowed": allowed,
                }
            },
        )
        return response

    async def simple_response(
        self, scope: Scope, receive: Receive, send: Send, request_headers: Headers
    ) -> None:
        """Pass a request on, logging it where its origin is not allowed."""
        origin = request_headers["origin"]
        if not self.is_allowed_origin(origin):
            fields = {"origin": origin[:_SHOWN], "path": scope["path"][:_SHOWN], "allowed": False}
            _log.warning("CORS origin refused", extra={"fields": fields})
        await super().simple_response(scope, receive, send, request_headers)
