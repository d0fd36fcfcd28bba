"""One HTTP request with the standard library alone: no redirects, no proxy, a bounded answer."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from opslib.core.deadline import run_within
from opslib.core.errors import ParameterError

MAX_BODY_BYTES = 65_536
FAILURES = (OSError, http.client.HTTPException, ValueError)


def request(
    url: str,
    timeout_s: float,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send a GET, or a POST where there is a `body`, and return status and answer.

    Raises:
        one of `FAILURES`: there is no answer; `timeout_s` holds for each read, not for the whole.
    """
    parts = urlsplit(url)
    connection = _connect(parts.scheme, parts.hostname or "", parts.port, timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    method = "GET" if body is None else "POST"
    try:
        connection.request(
            method, path, body=body, headers={"User-Agent": "pillops", **(headers or {})}
        )
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BODY_BYTES)
    finally:
        connection.close()


def check_address(address: str, key: str) -> None:
    """Refuse what `key` refers to where it is no address, without repeating it.

    Raises:
        ParameterError: it is not http://host… or https://host….
    """
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ParameterError(f"{key}: expected the variable to hold http:// or https://…")


def tell(
    address: str,
    timeout_s: float,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> str | None:
    """Send a request of which only a 2xx matters; return None, or why there was none within
    `timeout_s`. The reason never repeats the address, which is a secret."""

    def attempt() -> str:
        try:
            status, _ = request(address, timeout_s, body=body, headers=headers)
        except FAILURES as error:
            return name_failure(error).replace(address, "the address")
        return "" if 200 <= status < 300 else f"HTTP {status}"

    return run_within({"it": attempt}, timeout_s).get("it", "no answer in time") or None


def name_failure(error: Exception) -> str:
    """Return why there was no answer, in a few words on one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, http.client.HTTPException):
        return f"no HTTP answer ({type(error).__name__})"
    if isinstance(error, ValueError):  # its text may quote a part of a password
        return "the address cannot be used"
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return " ".join(text.split())[:120]


def _connect(
    scheme: str, host: str, port: int | None, timeout_s: float
) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, port, timeout=timeout_s)
