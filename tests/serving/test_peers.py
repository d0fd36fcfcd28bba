"""`benchmarks/peers.py` holds our service against others: what it counts, and what it refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from benchmarks.peer_services import Arm, check_agreement, start_peer, tree_cpu_s
from opslib.core.errors import OpsError
from tests.waiting import await_that

BURN = """
import subprocess, sys, threading, time
def burn():
    while time.thread_time() < 0.2: pass
thread = threading.Thread(target=burn)
thread.start()
thread.join()
if len(sys.argv) == 2:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(flush=True)
sys.stdin.read()
"""
needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")


@contextmanager
def answering(class_id: int, confidence: float, *, fails_at: int | None = None) -> Iterator[Arm]:
    """A service that says the same of every image, and 500 from one request on."""
    asked = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal asked
            asked += 1
            self.rfile.read(int(self.headers["Content-Length"]))
            body = f'{{"class_id": {class_id}, "confidence": {confidence}}}'.encode()
            self.send_response(500 if fails_at is not None and asked >= fails_at else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            yield Arm(f"class {class_id}", url, pid=1, rate_per_s=20)
        finally:
            server.shutdown()
            thread.join()


def test_the_time_of_a_service_has_its_children_and_the_threads_that_ended() -> None:
    command = [sys.executable, "-c", BURN, BURN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for _ in ("the process", "its child"):
            assert process.stdout.readline()
        assert tree_cpu_s(process.pid) >= 2 * 0.2
        process.stdin.close()


@pytest.mark.parametrize("other", [(2, 0.9), (1, 0.85)])
def test_services_that_do_not_say_the_same_are_not_compared(other: tuple[int, float]) -> None:
    with ExitStack() as stack:
        ours = stack.enter_context(answering(1, 0.9))
        same = stack.enter_context(answering(1, 0.9004))
        check_agreement(ours, [ours, same], [b"image"])
        peer = stack.enter_context(answering(*other))
        with pytest.raises(OpsError, match=rf"says of image 0 class {other[0]} at {other[1]}"):
            check_agreement(ours, [ours, same, peer], [b"image"])


@needs_h2load
@pytest.mark.parametrize("fails_at", [None, 20])
def test_a_load_is_measured_only_where_every_request_was_answered(
    fails_at: int | None, tmp_path: Path
) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"image")
    with answering(1, 0.9, fails_at=fails_at) as arm:
        if fails_at is None:
            visit = arm.load(body, connections=2, seconds=1)
            assert visit.rate_per_s == arm.rate_per_s > 0
        else:
            with pytest.raises(OpsError, match=r"not every request was answered.*19 2xx.* 1 5xx"):
                arm.load(body, connections=2, seconds=1)


def test_a_peer_ends_with_its_block(tmp_path: Path) -> None:
    with start_peer(
        "files", Path(sys.executable), "http.server {port} --bind 127.0.0.1", {}, tmp_path
    ) as arm:
        await_that(lambda: is_open(arm), "an answer")
    assert not is_open(arm)


def is_open(arm: Arm) -> bool:
    try:
        return httpx.get(arm.url, trust_env=False).is_success
    except httpx.TransportError:
        return False
