"""One HTTP request with the standard library alone: no redirects, no proxy, a bounded answer."""

import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

from opslib.core.deadline import run_within
from opslib.core.errors import ParameterError
from opslib.core.language import tr
from opslib.core.secrets import split_http

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
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    said = {"User-Agent": "pillops", **(headers or {})}
    try:
        connection.request("GET" if body is None else "POST", path, body=body, headers=said)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BODY_BYTES)
    finally:
        connection.close()


def check_address(address: str, key: str) -> None:
    """Refuse what `key` refers to where it is no address, without repeating it. Raises
    `ParameterError` where it is not http://host… or https://host…."""
    try:
        split_http(address)
    except ValueError:
        wanted = f"{key}: expected the variable to hold http:// or https://…"
        raise ParameterError(wanted) from None


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

    return run_within({"it": attempt}, timeout_s).get("it", tr("no answer in time")) or None


def name_failure(error: Exception) -> str:
    """Return why there was no answer, in a few words on one line."""
    if isinstance(error, TimeoutError):
        return tr("no answer in time")
    if isinstance(error, ConnectionRefusedError):
        return tr("connection refused")
    if isinstance(error, http.client.HTTPException):
        return tr("no HTTP answer ({error})", error=type(error).__name__)
    if isinstance(error, ValueError):  # its text may quote a part of a password
        return tr("the address cannot be used")
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return " ".join(text.split())[:120]
