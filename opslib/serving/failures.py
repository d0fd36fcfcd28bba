"""Answers that say no: one shape, `{"detail", "code"}`, with the stage and a hint where known."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

CODES = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "unsupported_type",
    422: "unprocessable",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}


class RefusalError(Exception):
    """A request that is answered with an error status; the process goes on.

    Args:
        status: HTTP status.
        detail: one line that names what is wrong and what was expected; never a secret.
        code: a short word for programs; derived from the status unless given.
        extra: further fields of the answer, such as `stage` and `hint`.
        headers: further header fields.
        close: whether the connection is closed because the request's body was not read.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        extra: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or CODES.get(status, "error")
        self.extra = extra or {}
        self.headers = headers or {}
        self.close = close

    def response(self) -> Response:
        """Return the answer as JSON."""
        headers = dict(self.headers)
        if self.close:
            headers["Connection"] = "close"
        return json_response(
            {"detail": self.detail, "code": self.code, **self.extra}, self.status, headers
        )


def json_response(
    content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return `content` as a JSON answer.

    Raises:
        ValueError: it holds a NaN or an infinity, for which JSON has no word.
    """
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    return Response(body, status, headers, media_type="application/json")


async def answer_refusal(_request: Request, error: Exception) -> Response:
    """Answer a `RefusalError` (an exception handler)."""
    if not isinstance(error, RefusalError):
        raise error
    return error.response()


async def answer_http_exception(_request: Request, error: Exception) -> Response:
    """Answer an unknown path or method in our own shape (an exception handler)."""
    status = int(getattr(error, "status_code", 500))
    headers = getattr(error, "headers", None)
    return RefusalError(status, str(getattr(error, "detail", error)), headers=headers).response()


def answer_crash(request_id: str) -> Response:
    """Return the answer to an unforeseen error; the log has its traceback under that id."""
    return RefusalError(500, f"internal error; see request {request_id} in api.err").response()
