"""A flood from outside: many connections of one kind, held and renewed, by a process of their own.

    python tests/serving/flood.py PORT KIND HELD NEW_PER_S

It needs nothing but the standard library and sleeps wherever it can, so that it takes little of the
processors that it shares with its target. It says when it has begun, ends when its standard input
does, and prints how many connections it opened, lost and had at once, and how many bytes it sent.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass

ADDRESS = "127.0.0.1"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
BLOCK = 64 * 1024
DRIP_S = 1.0
RAMP_PER_S = 300.0
POUR_BYTES_S = 32 << 20  # of all connections together: a loopback that is full serves nobody
NEVER = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


def fill(part: bytes) -> bytes:
    """`part` over and over, about 64 KiB of it."""
    return part * max(1, BLOCK // len(part))


@dataclass(frozen=True)
class Kind:
    """How a connection behaves: what it sends at once, and what it sends on without an end."""

    first: bytes = b""
    more: bytes = b""
    drips: bool = False  # a byte a second, else as fast as it is taken
    vanishes: bool = False  # resets the connection as soon as it has sent
    reads: bool = True


SLOW = {
    "silent": Kind(),
    "slow header": Kind(GET + b"X-Slow: ", b"a", drips=True),
    "slow header, almost too large": Kind(GET + b"X-Slow: " + b"a" * 65_000, b"a", drips=True),
    "slow body": Kind(POST + b"Content-Length: 9000000\r\n\r\n", b"a", drips=True),
    "slow body, begun at once": Kind(
        POST + b"Content-Length: 9000000\r\n\r\n" + bytes(200_000), b"a", drips=True
    ),
    "slow empty lines": Kind(GET + b"\r\n", b"\r\n", drips=True),
    "vanishing": Kind(GET + b"\r\n", vanishes=True),
    "vanishing in a body": Kind(POST + b"Content-Length: 9\r\n\r\n1", vanishes=True),
    "unread answers": Kind(
        b"", fill(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"), reads=False
    ),
}
OVERSIZED = {
    "empty lines": Kind(b"", fill(b"\r\n")),
    "method": Kind(b"", fill(b"A")),
    "address": Kind(b"GET /", fill(b"a")),
    "query": Kind(b"GET /health?", fill(b"a=b&")),
    "version": Kind(b"GET / HTTP/1.1", fill(b" ")),
    "header name": Kind(GET, fill(b"a")),
    "header value": Kind(GET + b"X-A: ", fill(b"a")),
    "header fields": Kind(GET, fill(b"ab:cd\r\n")),
    "folded header": Kind(GET + b"X-A: a\r\n", fill(b" a\r\n")),
    "refused body": Kind(POST + b"Content-Length: 99999999999\r\n\r\n", fill(b"a")),
    "refused chunks": Kind(CHUNKED, fill(b"1\r\na\r\n")),
    "chunk size": Kind(CHUNKED, fill(b"0")),
    "chunk extension": Kind(CHUNKED + b"1;", fill(b"a")),
    "chunk extensions": Kind(CHUNKED + b"1", fill(b";a=b")),
    "trailer fields": Kind(CHUNKED + b"0\r\n", fill(b"ab:cd\r\n")),
    "one trailer": Kind(CHUNKED + b"0\r\nX-A: ", fill(b"a")),
    "requests in line": Kind(b"", fill(b"GET /health HTTP/1.1\r\n\r\n")),
    "after an upgrade": Kind(
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", fill(b"\x81\x05aaaaa")
    ),
    "other protocol": Kind(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", fill(b"\x00")),
    "tunnel": Kind(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", fill(b"a")),
    "expectations": Kind(b"", fill(POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\na")),
}
ORIGIN = b"Host: x\r\nOrigin: https://evil.example\r\n"
NOISE = {
    "no key": Kind(b"", fill(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")),
    "public": Kind(b"", fill(GET + b"\r\n")),
    "origins": Kind(b"", fill(b"GET /health HTTP/1.1\r\n" + ORIGIN + b"\r\n")),
    "preflights": Kind(
        b"", fill(b"OPTIONS / HTTP/1.1\r\n" + ORIGIN + b"Access-Control-Request-Method: A\r\n\r\n")
    ),
    "upgrades": Kind(GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", vanishes=True),
    "no HTTP": Kind(b"\x16\x03\x01\x02\x00\x01", vanishes=True),
}
KINDS = SLOW | OVERSIZED | NOISE


class Flood:
    """Connections of one kind to a port: `held` at most, `per_s` new ones a second."""

    def __init__(self, port: int, kind: Kind, held: int, per_s: float) -> None:
        self._address = (ADDRESS, port)
        self._kind = kind
        self._held = held
        self._per_s = per_s
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._todo: dict[int, memoryview] = {}
        self._drips: deque[tuple[float, int]] = deque()
        self.opened = self.lost = self.most = self.sent_bytes = 0

    def run(self) -> None:
        """Flood until standard input ends, then let go of everything."""
        started, begun = time.monotonic(), False
        while not select.select([sys.stdin], [], [], 0)[0]:
            now = time.monotonic()
            for _ in range(int(self._due(now - started)) - self.opened):
                self._connect()
            self._drip(now)
            if self.sent_bytes > POUR_BYTES_S * (now - started + 1):
                time.sleep(0.01)
                continue
            for number, event in self._poll.poll(0.02):
                self._serve(number, event)
            self.most = max(self.most, len(self._open))
            if not begun and self.opened >= self._held:
                begun = True
                sys.stdout.write("begun\n")
                sys.stdout.flush()
        for number in list(self._open):
            self._close(number)

    def _due(self, elapsed_s: float) -> float:
        """How many connections to have opened by now: at first faster, until all are held."""
        return min(self._held, elapsed_s * RAMP_PER_S) + self._per_s * elapsed_s

    def _connect(self) -> None:
        self.opened += 1
        if len(self._open) >= self._held:
            self._close(next(iter(self._open)))
        one = socket.socket()
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
        if not self._kind.reads:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if self._kind.vanishes:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NEVER)
        if one.connect_ex(self._address) not in (0, errno.EINPROGRESS):
            one.close()
            self.lost += 1
            return
        number = one.fileno()
        self._open[number] = one
        self._todo[number] = memoryview(self._kind.first)
        self._poll.register(number, select.EPOLLOUT | select.EPOLLIN)

    def _serve(self, number: int, event: int) -> None:
        one = self._open.get(number)
        if one is None:
            return
        try:
            if event & (select.EPOLLHUP | select.EPOLLERR):
                raise ConnectionResetError
            if event & select.EPOLLIN and self._kind.reads and not one.recv(BLOCK):
                raise ConnectionResetError
            if event & select.EPOLLOUT:
                self._send(number, one)
        except BlockingIOError:
            pass
        except OSError:
            self.lost += 1
            self._close(number)

    def _send(self, number: int, one: socket.socket) -> None:
        kind, todo = self._kind, self._todo[number]
        if not todo and kind.more and not kind.drips:
            todo = memoryview(kind.more)
        if todo:
            sent = one.send(todo)
            self.sent_bytes += sent
            self._todo[number] = todo = todo[sent:]
        if not todo and kind.vanishes:
            self._close(number)
        elif not todo and (kind.drips or not kind.more):
            self._poll.modify(number, select.EPOLLIN)
            self._drips.append((time.monotonic() + DRIP_S, number))

    def _drip(self, now: float) -> None:
        while self._drips and self._drips[0][0] <= now:
            _, number = self._drips.popleft()
            one = self._open.get(number)
            if one is None or not self._kind.more:
                continue
            try:
                one.send(self._kind.more)
            except OSError:
                self.lost += 1
                self._close(number)
            else:
                self._drips.append((now + DRIP_S, number))

    def _close(self, number: int) -> None:
        self._poll.unregister(number)
        del self._todo[number]
        self._open.pop(number).close()


def main() -> None:
    """Flood as the command line says."""
    port, kind, held, per_s = sys.argv[1:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    flood = Flood(int(port), KINDS[kind], int(held), float(per_s))
    flood.run()
    sys.stdout.write(f"{flood.opened} {flood.lost} {flood.most} {flood.sent_bytes}\n")


if __name__ == "__main__":
    main()
