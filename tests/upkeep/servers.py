"""Real local servers that misbehave as told: well, refusing, hanging, 500, slow, a login page."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HEALTHY = json.dumps({"status": "ok", "device": "cpu", "model_loaded": True}).encode()
DEGRADED = json.dumps(
    {"status": "degraded", "wanted": "model-b", "served": "model-a", "reason": "it is gone"}
).encode()
MODES = ("ok", "refuse", "hang", "500", "slow", "drip", "login", "redirect", "starting", "degraded")


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers `/<name>` as the file `<name>.mode` says."""

    server: _Server

    def do_GET(self) -> None:
        mode = (self.server.folder / f"{self.path.strip('/')}.mode").read_text().strip()
        self.server.asked.append((self.path.strip("/"), mode))
        if mode == "refuse":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif mode == "hang":
            self.server.ended.wait(30)
        elif mode == "drip":
            self._answer(200, HEALTHY, drip=True)
        elif mode == "slow":
            self.server.ended.wait(4)
            self._answer(200, HEALTHY)
        else:
            status, body = {
                "ok": (200, HEALTHY),
                "500": (500, b'{"detail":"broken","code":"internal"}'),
                "login": (200, b"<html>Sign in</html>"),
                "redirect": (302, b""),
                "starting": (200, b'{"status":"starting"}'),
                "degraded": (200, DEGRADED),
            }[mode]
            self._answer(status, body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mode = (self.server.folder / "webhook.mode").read_text().strip()
        if mode == "ok":
            self.server.posted.append(json.loads(body))
        self._answer(200 if mode == "ok" else 503, b"")

    def _answer(self, status: int, body: bytes, *, drip: bool = False) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "/ok")
            self.end_headers()
            for index in range(len(body)) if drip else ():
                self.wfile.write(body[index : index + 1])
                self.wfile.flush()
                if self.server.ended.wait(0.1):
                    return
            if not drip:
                self.wfile.write(body)
        except OSError:
            pass

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[tuple[str, str]] = []
        self.posted: list[dict[str, str]] = []
        self.ended = threading.Event()


@dataclass
class World:
    """An app, a tunnel and a webhook on one loopback port, each in a mode of its own."""

    folder: Path
    server: _Server = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def posted(self) -> list[dict[str, str]]:
        return self.server.posted

    def set(self, **modes: str) -> None:
        for name, mode in modes.items():
            (self.folder / f"{name}.mode").write_text(mode)


@contextmanager
def open_world(folder: Path) -> Iterator[World]:
    server = _Server(folder)
    world = World(folder, server)
    world.set(internal="ok", external="ok", webhook="ok")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield world
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
