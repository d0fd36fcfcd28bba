"""The grammar of HTTP beside headers and bodies: trailers, requests in line, what comes after."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.serving.keys import HEADER
from opslib.serving.protocol import MAX_HEADER_FIELDS, MAX_IN_LINE, MAX_OVERHEAD_BYTES
from opslib.serving.staging import start_service
from tests.serving.conftest import Live, make_place, open_live

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service that keeps nobody long."""
    folder = tmp_path_factory.mktemp("hasty")
    place = make_place(folder, "service: {body_timeout_s: 1, keep_alive_s: 1}\n")
    with start_service(place.config_path) as service:
        running = open_live(service, place)
        yield running
        running.client.close()


def talk(live: Live, data: bytes) -> bytes:
    """Send `data`; return all that is answered until the service ends the connection."""
    port = int(live.service.url.rpartition(":")[2])
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 20) as one:
        one.sendall(data)
        try:
            while part := one.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_a_key_in_a_trailer_is_none(hasty: Live) -> None:
    trailer = f"{HEADER}: {hasty.service.key}\r\n\r\n".encode()
    head = b"POST /version HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert statuses(talk(hasty, head + b"0\r\n" + trailer)) == [401]


def test_requests_in_line_are_answered_in_their_order(hasty: Live) -> None:
    names = [f"in-line-{index}" for index in range(MAX_IN_LINE)]
    answer = talk(hasty, b"".join(GET + f"X-Request-ID: {n}\r\n\r\n".encode() for n in names))
    assert statuses(answer) == [200] * MAX_IN_LINE
    assert [answer.index(name.encode()) for name in names] == sorted(
        answer.index(name.encode()) for name in names
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        GET + b"\r\n\r\n",
        GET + b"\r\n" + b"\r\n" * 100,
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123456789",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05abcde",
        b"",
    ],
    ids=["line", "line after", "lines after", "whole body", "part of a body", "upgrade", "silent"],
)
def test_whatever_came_the_connection_does_not_stay(hasty: Live, data: bytes) -> None:
    assert all(status in (200, 400, 401) for status in statuses(talk(hasty, data)))


def test_the_end_of_a_refused_body_sent_late_does_not_keep_the_connection(hasty: Live) -> None:
    port = int(hasty.service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 20) as one:
        one.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1")
        assert b" 401 " in one.recv(65536)
        one.sendall(b"23456789")
        assert one.recv(65536) == b""


@pytest.mark.parametrize(
    "head",
    [
        GET + b"ab: cd\r\n" * (MAX_HEADER_FIELDS + 1),
        GET + b"X-A: " + b"a" * (MAX_OVERHEAD_BYTES + 1) + b"\r\n",
        b"GET /health?" + b"a" * 8192 + b" HTTP/1.1\r\nHost: x\r\n",
    ],
    ids=["fields", "bytes", "address"],
)
def test_too_large_a_head_is_400_though_it_came_in_one_piece(hasty: Live, head: bytes) -> None:
    assert statuses(talk(hasty, head + b"\r\n")) == [400]


def test_small_chunks_of_an_honest_client_are_read(hasty: Live) -> None:
    body = json.dumps({"model_path": str(hasty.place.first)}).encode()
    headers = {"Content-Type": "application/json"}
    pieces = (body[index : index + 1] for index in range(len(body)))
    assert hasty.client.post("/reload", content=pieces, headers=headers).status_code == 200


def test_what_a_stranger_sends_wrong_is_no_line_each(hasty: Live) -> None:
    log = Path(hasty.place.config.logs_dir / "api.err")
    before = log.stat().st_size
    for _ in range(100):
        talk(hasty, b"\x16\x03\x01\r\n\r\n")
    assert log.stat().st_size - before < 2000
