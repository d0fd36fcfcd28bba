"""The layers around the routes. Trace: a request id, the model's headers on every answer, one log
line each. Cross-origin rules: preflights and refused origins are logged. The gate: who may enter
and how often; only `/health` and the API's description are public."""

import logging
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opslib.serving.connections import SLOT
from opslib.serving.failures import RefusalError, answer_crash
from opslib.serving.generations import Generation
from opslib.serving.keys import HEADER, keys_match
from opslib.serving.logs import CAUSED_OUTSIDE, AccessLog

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

    Operators' requests (`/version`, `/reload`) have their own count of `per_min` requests a minute,
    so that a client that floods `/predict` cannot lock them out. The routes `inference` are
    answered here: FastAPI's machinery costs a tenth of a small model's run.
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
            scope["state"][HAS_KEY] = True
            if SLOT in scope["state"] and not scope["state"][SLOT].vouch():
                code = "too_many_connections"
                raise RefusalError(503, "too many connections", code=code, retry_s=1)
        if scope["path"] in PUBLIC:
            return
        if not has_key:
            problem = "missing" if not given else "wrong"
            challenge = {"WWW-Authenticate": f'ApiKey header="{HEADER}"'}
            raise RefusalError(401, f"the {HEADER} header is {problem}", headers=challenge)
        wait_s = self._rate.take("inference" if scope["path"] in self._inference else "operations")
        if wait_s:
            raise RefusalError(429, "too many requests a minute", retry_s=wait_s)


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
        plain = scope["type"] == "http" and all(name != b"origin" for name, _ in scope["headers"])
        await (self.app if plain else super().__call__)(scope, receive, send)

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


_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
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
                headers = [*message.get("headers", ()), (b"x-request-id", request_id)]
                if served is not None:
                    headers.append((b"x-model-sha256", served.model.sha256.encode()))
                    headers.append((b"x-generation", str(served.number).encode()))
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        except Exception:
            fields = {"request_id": state["request_id"], "path": scope["path"][:_SHOWN]}
            _log.exception("a request failed", extra={"fields": fields})
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
