"""The gate: who may enter, and how often. Only `/health` and the API's description are public."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from opslib.serving.connections import SLOT
from opslib.serving.failures import RefusalError
from opslib.serving.keys import HEADER, keys_match
from opslib.serving.rate_limit import RateLimit
from opslib.serving.trace import HAS_KEY

PUBLIC = frozenset({"/health", "/docs", "/openapi.json"})
INFERENCE = frozenset({"/predict", "/batch"})
_HEADER = HEADER.lower().encode()


class Gate:
    """ASGI middleware: checks the key before any byte of the body is read, then the rate.

    Operators' requests (`/version`, `/reload`) have their own count, so that a client that floods
    `/predict` cannot lock them out.
    """

    def __init__(self, app: ASGIApp, key: bytes, per_min: int) -> None:
        self._app = app
        self._key = key
        self._rate = RateLimit(per_min)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 429 or 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except RefusalError as refusal:
            await refusal.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

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
        bucket = "inference" if scope["path"] in INFERENCE else "operations"
        wait_s = self._rate.take(bucket)
        if wait_s:
            raise RefusalError(
                429,
                f"too many requests a minute; try again in {wait_s} s",
                headers={"Retry-After": str(wait_s)},
            )


def _note_key(scope: Scope) -> None:
    """Say to the layers outside that this request has the key.

    Raises:
        RefusalError: its connection is one too many.
    """
    state = scope["state"]
    state[HAS_KEY] = True
    if SLOT in state and not state[SLOT].vouch():
        raise RefusalError(
            503,
            "too many connections; try again in 1 s",
            code="too_many_connections",
            headers={"Retry-After": "1"},
        )
