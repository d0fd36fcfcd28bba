"""A connection that is cut: a proxy before a server that lets so many bytes through and no more."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class CuttingProxy:
    """Passes connections on to a port of this host until `limit` bytes went to the server; then
    every connection is cut, and each new one at once. None: never."""

    def __init__(self, port: int) -> None:
        self._port, self._left = port, None
        self.passed = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    _left: int | None

    @property
    def address(self) -> str:
        """Where a client finds it."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def limit(self, left: int | None) -> None:
        """Cut after so many more bytes to the server, or never; count anew."""
        with self._lock:
            self._left, self.passed = left, 0

    def close(self) -> None:
        """Cut all and take no more."""
        self.limit(0)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._left == 0:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._port))
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError, ValueError), selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select():
                    source, target = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    data = source.recv(1 << 16)
                    if not data:
                        return self._close(near, far)
                    if source is near and not self._allow(data, target):
                        return self.cut()
                    if source is far:
                        target.sendall(data)
        return self._close(near, far)

    def _allow(self, data: bytes, target: socket.socket) -> bool:
        with self._lock:
            count = len(data) if self._left is None else min(len(data), self._left)
            self.passed += count
            if self._left is not None:
                self._left -= count
        target.sendall(data[:count])
        return count == len(data)

    def cut(self) -> None:
        """Cut every connection there is; a new one is let through."""
        with self._lock:
            sockets, self._open = self._open, set()
        self._close(*sockets)

    def _close(self, *sockets: socket.socket) -> None:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def cutting(port: int) -> Iterator[CuttingProxy]:
    """Yield a proxy before a port of this host."""
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
