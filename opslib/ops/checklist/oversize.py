"""Offering the service an image that is too large, and sending no more of it than needed."""

from __future__ import annotations

import contextlib
import http.client
import select
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from opslib.serving.keys import HEADER
from opslib.serving.live import normalise_url

MIB = 1 << 20
DECLARED_WAIT_S = 2.0
_BOUNDARY = "pillops-checklist"
_HEAD = (
    f"--{_BOUNDARY}\r\n"
    'Content-Disposition: form-data; name="image"; filename="checklist.jpg"\r\n'
    "Content-Type: image/jpeg\r\n\r\n"
).encode()
_TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()


@dataclass(frozen=True)
class Oversize:
    """How the offer was answered (None: not at all, or by hanging up, as `closed` says), and
    whether its declared size sufficed."""

    status: int | None
    declared: bool
    closed: bool = False


def offer_oversize(url: str, key: str, limit_mb: int, timeout_s: float) -> Oversize:
    """Offer an image one MiB above `limit_mb` to `/predict`.

    Its size is declared first and an answer awaited; only where none comes, as from a service that
    counts what arrives, is the image sent, until there is one. Raises OSError: the service cannot
    be reached.
    """
    connection = _connect(url, timeout_s)
    size = (limit_mb + 1) * MIB
    try:
        connection.putrequest("POST", urlsplit(normalise_url(url)).path + "/predict")
        connection.putheader(HEADER, key)
        connection.putheader("User-Agent", _BOUNDARY)
        connection.putheader("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")
        connection.putheader("Content-Length", str(len(_HEAD) + size + len(_TAIL)))
        connection.endheaders()
        declared = _answers_within(connection, min(timeout_s, DECLARED_WAIT_S))
        if not declared:
            _send_until_answered(connection, size)
        try:
            return Oversize(connection.getresponse().status, declared)
        except ConnectionResetError:
            return Oversize(None, declared, closed=True)
        except (TimeoutError, http.client.HTTPException):
            return Oversize(None, declared)
    finally:
        connection.close()


def _send_until_answered(connection: http.client.HTTPConnection, size: int) -> None:
    block = bytes(MIB)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # perhaps after an answer
        connection.send(_HEAD)
        for _ in range(size // MIB):
            connection.send(block)
            if _answers_within(connection, 0.0):
                return
        connection.send(_TAIL)


def _answers_within(connection: http.client.HTTPConnection, wait_s: float) -> bool:
    ready, _, _ = select.select([connection.sock], [], [], wait_s)
    return bool(ready)


def _connect(url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(normalise_url(url))
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
