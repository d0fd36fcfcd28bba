"""The stand-in for the public address relays to the service, and ends when it should."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from opslib.ops.acceptance.run import ADDRESS, open_stand_in


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from inside")

    def log_message(self, *_arguments: object) -> None:
        return


@pytest.fixture
def inside() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_request_to_the_second_address_reaches_the_service(inside: HTTPServer) -> None:
    with open_stand_in(inside.server_port) as url:
        assert url.startswith(f"http://{ADDRESS}:")
        assert httpx.get(url, trust_env=False).text == "hello from inside"


def test_a_service_that_is_down_is_down_outside_too(inside: HTTPServer) -> None:
    port = inside.server_port
    inside.shutdown()
    inside.server_close()
    with open_stand_in(port) as url, pytest.raises(httpx.TransportError):
        httpx.get(url, trust_env=False, timeout=5)


def test_nothing_answers_after_the_end(inside: HTTPServer) -> None:
    with open_stand_in(inside.server_port) as url:
        pass
    with pytest.raises(httpx.TransportError):
        httpx.get(url, trust_env=False, timeout=5)
