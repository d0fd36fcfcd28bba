"""A second loopback address that stands in for the public one: a relay in front of the service.

It shows that the service answers through another address and another connection. It shows nothing
of Cloudflare, DNS or certificates, and whatever uses it says so.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ADDRESS = "127.0.0.2"
_CHUNK_BYTES = 1 << 16


@contextmanager
def open_stand_in(port: int, *, address: str = ADDRESS) -> Iterator[str]:
    """Relay `http://127.0.0.2:<free port>` to `127.0.0.1:port` for the block; yield its URL."""
    listener = socket.create_server((address, 0))
    threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
    try:
        yield f"http://{address}:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket, port: int) -> None:
    while True:
        try:
            outside, _ = listener.accept()
        except OSError:
            return
        try:
            inside = socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            outside.close()
            continue
        for source, target in ((outside, inside), (inside, outside)):
            threading.Thread(target=_relay, args=(source, target), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
