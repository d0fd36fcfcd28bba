"""The gate: who may enter, from which front ends, and how often.

Only `/health` and the API's description are public. Preflights and refused origins are logged.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from opslib.serving.connections import SLOT
from opslib.serving.failures import RefusalError
from opslib.serving.keys import HEADER, keys_match
from opslib.serving.logs import CAUSED_OUTSIDE
from opslib.serving.trace import HAS_KEY

PUBLIC = frozenset({"/health", "/docs", "/openapi.json"})
EXPOSED = ("X-Request-ID", "X-Model-SHA256", "X-Generation", "Retry-After")
_HEADER = HEADER.lower().encode()
_SHOWN = 200
_log = logging.getLogger(CAUSED_OUTSIDE)

Endpoint = Callable[[Request], Awaitable[Response]]


class RateLimit:
    """A token bucket a name: `per_min` requests at once, refilled evenly over a minute."""

    def __init__(self, per_min: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_min = per_min
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> int:
        """Take one request of `name`; return 0, or after how many seconds to try again."""
        now = self._clock()
        tokens, then = self._buckets.get(name, (float(self._per_min), now))
        tokens = min(float(self._per_min), tokens + (now - then) * self._per_min / 60)
        taken = tokens >= 1
        self._buckets[name] = (tokens - taken, now)
        return 0 if taken else max(1, math.ceil((1 - tokens) * 60 / self._per_min))


class Gate:
    """ASGI middleware: checks the key before any byte of the body is read, then the rate.

    Operators' requests (`/version`, `/reload`) have their own count, so that a client that floods
    `/predict` cannot lock them out.

    Args:
        app: what lies behind.
        inference: the routes that matter for speed. FastAPI describes them too, but they are
            answered here: its machinery costs a tenth of a small model's run.
        key: what a request must show.
        per_min: requests a minute of each count.
    """

    def __init__(
        self, app: ASGIApp, inference: Mapping[str, Endpoint], key: bytes, per_min: int
    ) -> None:
        self._app = app
        self._inference = inference
        self._key = key
        self._rate = RateLimit(per_min)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 429 or 503."""
        answer = self._app
        if scope["type"] == "http":
            try:
                self._check(scope)
                endpoint = self._inference.get(scope["path"])
                if endpoint is not None and scope["method"] == "POST":
                    answer = await endpoint(Request(scope, receive))
            except RefusalError as refusal:
                answer = refusal.response()
        await answer(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == _HEADER]
        has_key = len(given) == 1 and keys_match(self._key, given[0])
        if has_key:
            _note_key(scope)
        if scope["path"] in PUBLIC:
            return
        if not has_key:
            problem = "missing" if not given else "wrong"
            raise RefusalError(
                401,
                f"the {HEADER} header is {problem}",
                headers={"WWW-Authenticate": f'ApiKey header="{HEADER}"'},
            )
        wait_s = self._rate.take("inference" if scope["path"] in self._inference else "operations")
        if wait_s:
            raise RefusalError(
                429,
                f"too many requests a minute; try again in {wait_s} s",
                headers={"Retry-After": str(wait_s)},
            )


def _note_key(scope: Scope) -> None:
    """Say to the layers outside that this request has the key."""
    state = scope["state"]
    state[HAS_KEY] = True
    if SLOT in state and not state[SLOT].vouch():
        raise RefusalError(
            503,
            "too many connections; try again in 1 s",
            code="too_many_connections",
            headers={"Retry-After": "1"},
        )


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
        level, verdict = (logging.INFO, "allowed") if allowed else (logging.WARNING, "refused")
        fields = {
            "origin": request_headers["origin"][:_SHOWN],
            "method": request_headers["access-control-request-method"][:_SHOWN],
            "allowed": allowed,
        }
        _log.log(level, "CORS preflight %s", verdict, extra={"fields": fields})
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
