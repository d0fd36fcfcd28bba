"""The load generator's own client: cheap, and honest about what did not work."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opslib.core.errors import OpsError
from opslib.serving.load import LoadPlan, start_load
from opslib.serving.load_sending import run_load
from opslib.serving.sender import Sender, join_request

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextmanager
def answering(*answers: bytes | None) -> Iterator[str]:
    """A server that gives each connection the next answer, byte for byte; None says nothing."""
    bound = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = bound.accept()
            except OSError:
                return
            held.append(connection)
            connection.recv(1 << 16)
            if answer is not None:
                connection.sendall(answer)
                if b"content-length" not in answer:
                    connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        for connection in held:
            connection.close()
        bound.close()


def send(url: str, timeout_s: float = 2.0) -> bytes:
    async def once() -> bytes:
        sender = Sender(url, 4, timeout_s)
        answer = await sender.send(join_request(url, "/predict", {"X-API-Key": "k"}, b"body"))
        sender.close()
        assert answer.received_s >= answer.sent_s > 0
        return answer.body

    return asyncio.run(once())


def test_a_request_is_whole_http() -> None:
    request = join_request("http://h:1/base/", "/predict", {"X-API-Key": "k"}, b"body")
    assert request == (
        b"POST /base/predict HTTP/1.1\r\nHost: h:1\r\nX-API-Key: k\r\nContent-Length: 4\r\n\r\nbody"
    )


def test_an_answer_in_pieces_or_chunks_is_put_together() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
    for answer in (GOOD, chunked):
        with answering(answer) as url:
            assert send(url) == b"ok"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionResetError),
        (b"HTTP/1.1 200 OK\r\nContent-", ConnectionResetError),
        (b"this is no HTTP\r\n\r\n", ValueError),
        (None, TimeoutError),
    ],
    ids=["closed", "cut off", "no HTTP", "silent"],
)
def test_what_is_no_answer_is_an_error(answer: bytes | None, error: type[Exception]) -> None:
    with answering(answer) as url, pytest.raises(error):
        send(url, timeout_s=0.3)


def test_nobody_listening_is_a_failed_request_and_not_the_end_of_the_load(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    plan = LoadPlan(url=f"http://127.0.0.1:{port}", images=(image,), requests=5, rate_per_s=200.0)
    result = run_load(plan, "key")
    assert len(result.failures) == 5
    assert {one.status for one in result.samples} == {0}
    assert "ConnectionRefusedError" in str(result.samples[0].error)


def test_a_prediction_without_a_class_is_a_failure(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    with answering(GOOD) as url:
        plan = LoadPlan(url=url, images=(image,), requests=1, rate_per_s=100.0)
        result = run_load(plan, "key")
    assert result.samples[0].status == 200
    assert result.samples[0].failed
    assert "no prediction" in str(result.samples[0].error)


def test_a_load_that_waits_for_a_connection_counts_the_wait(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    with answering(None, None) as url:
        plan = LoadPlan(
            url=url,
            images=(image,),
            requests=2,
            rate_per_s=1000.0,
            connections=1,
            timeout_s=0.2,
        )
        result = run_load(plan, "key")
    first, second = result.samples
    assert first.latency_ms < 300
    assert second.latency_ms > 390  # due with the first, and waited for its connection


def test_a_load_ends_early_when_told_to_and_keeps_what_it_has(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    plan = LoadPlan(url="http://127.0.0.1:9", images=(image,), requests=100_000, rate_per_s=100.0)
    with start_load(plan, "key") as load:
        load.wait_started()
        result = load.stop(10)
    assert 0 < len(result.samples) < 1000


def test_a_load_that_cannot_begin_says_so(tmp_path: Path) -> None:
    plan = LoadPlan(
        url="http://127.0.0.1:9", images=(tmp_path / "gone.jpg",), requests=1, rate_per_s=1.0
    )
    with start_load(plan, "key") as load, pytest.raises(OpsError, match="ended with 1"):
        load.wait_started()


def test_a_connection_that_was_opened_beforehand_carries_the_first_request() -> None:
    async def ask(url: str) -> bytes:
        sender = Sender(url, 4, 2.0)
        await sender.open(1)
        answer = await sender.send(join_request(url, "/predict", {}, b"body"))
        sender.close()
        return answer.body

    with answering(GOOD) as url:  # a second connection would get no answer
        assert asyncio.run(ask(url)) == b"ok"
    with pytest.raises(OSError, match="Connect call failed"):
        asyncio.run(ask(url))


def test_a_load_that_is_behind_hears_of_its_answers_before_it_sends_all(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    plan = LoadPlan(
        url="http://127.0.0.1:9", images=(image,), requests=20_000, rate_per_s=1e9, limit_ms=1.0
    )
    assert 2 <= len(run_load(plan, "key").samples) < 2000
