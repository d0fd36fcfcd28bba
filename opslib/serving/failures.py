"""Answers that say no: one shape, `{"detail", "code"}`, with the stage and a hint where known."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
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


class RefusalError(HTTPException):
    """A request that is answered with an error status; the process goes on.

    `detail` is one line that names what is wrong and what was expected, never a secret; `code` a
    short word for programs, by default the status's; `extra` are further fields, such as `stage`
    and `hint`; `retry_s` is said in `detail` and in `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        extra: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_s: int | None = None,
    ) -> None:
        if retry_s is not None:
            detail, headers = f"{detail}; try again in {retry_s} s", {"Retry-After": str(retry_s)}
        super().__init__(status, detail, headers)
        self.code = code or CODES.get(status, "error")
        self.extra = extra or {}

    def response(self) -> Response:
        """Return the answer as JSON."""
        content = {"detail": self.detail, "code": self.code, **self.extra}
        return json_response(content, self.status_code, self.headers)


def json_response(
    content: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return `content` as a JSON answer; NaN and infinity, for which JSON has no word, are a
    `ValueError`."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    body = text.encode("utf-8", "backslashreplace")  # of a path whose bytes are no UTF-8
    return Response(body, status, headers, media_type="application/json")


async def answer_refusal(_request: Request, error: Exception) -> Response:
    """Answer a refusal, or an unknown path or method in the same shape (an exception handler)."""
    if isinstance(error, RefusalError):
        return error.response()
    if not isinstance(error, HTTPException):
        raise error
    return RefusalError(error.status_code, error.detail, headers=error.headers).response()


def answer_crash(request_id: str) -> Response:
    """Return the answer to an unforeseen error; the log has its traceback under that id."""
    return RefusalError(500, f"internal error; see request {request_id} in api.err").response()
