"""Attacks: the right status, no crash, no growth, and the key in no log."""

from __future__ import annotations

import io
import os
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from opslib.serving.staging import start_service
from tests.serving.conftest import Live, make_place, open_live

GROWTH_LIMIT_BYTES = 50 << 20


def memory_bytes(pid: int, line: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(one for one in text.splitlines() if one.startswith(line)).split()[1]) * 1024


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service of its own, so that its memory is its own too."""
    place = make_place(tmp_path_factory.mktemp("target"))
    variables = {"RATE_LIMIT_PER_MIN": "1000000"}
    with start_service(place.config_path, variables=variables) as service:
        running = open_live(service, place)
        for _ in range(20):
            running.predict(place.images[0])
        yield running
        running.client.close()


@pytest.fixture(autouse=True)
def unharmed(target: Live) -> Iterator[None]:
    """After each attack: same process, still answering, no more memory, no key logged."""
    Path(f"/proc/{target.service.pid}/clear_refs").write_text("5")
    before = memory_bytes(target.service.pid, "VmRSS")
    yield
    os.kill(target.service.pid, 0)
    assert target.predict(target.place.images[0]).status_code == 200
    assert memory_bytes(target.service.pid, "VmHWM") - before < GROWTH_LIMIT_BYTES
    for name in ("api.out", "api.err"):
        assert target.service.key not in target.place.read_log(name)


def connect(target: Live) -> socket.socket:
    host, port = target.service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def read_status(connection: socket.socket) -> int:
    data = b""
    while b"\r\n" not in data:
        part = connection.recv(4096)
        if not part:
            return 0
        data += part
    return int(data.split(b" ", 2)[1])


def head(target: Live, route: str, *lines: str) -> bytes:
    fixed = [f"POST {route} HTTP/1.1", "Host: x", f"X-API-Key: {target.service.key}"]
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def make_bomb(side: int) -> bytes:
    """A PNG of `side` squared black pixels, a few hundred kilobytes."""
    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_a_small_png_of_177_megapixels_is_413(target: Live) -> None:
    bomb = make_bomb(13_300)
    assert len(bomb) < 600_000
    answer = target.client.post("/predict", files={"image": ("a.png", bomb, "image/png")})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_pixels")


@pytest.mark.parametrize("route", ["/predict", "/reload"])
def test_a_gigabyte_in_chunks_is_cut_off(target: Live, route: str) -> None:
    kind = "application/json" if route == "/reload" else "multipart/form-data; boundary=b"
    chunk = b"100000\r\n" + b"a" * (1 << 20) + b"\r\n"
    first = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    sent = 0
    with connect(target) as connection:
        lines = (f"Content-Type: {kind}", "Transfer-Encoding: chunked")
        connection.sendall(head(target, route, *lines))
        connection.sendall(b"%x\r\n" % len(first) + first + b"\r\n")
        try:
            for _ in range(1024):
                connection.sendall(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 200 << 20
    answers = target.place.read_log("api.out").splitlines()
    assert f'"path": "{route}", "status": 413' in answers[-1]


def test_a_declared_gigabyte_is_413_before_it_is_sent(target: Live) -> None:
    with connect(target) as connection:
        lines = ("Content-Type: multipart/form-data; boundary=b", "Content-Length: 1073741824")
        connection.sendall(head(target, "/predict", *lines))
        assert read_status(connection) == 413


def test_an_upload_over_the_limit_is_413_and_the_client_reads_it(target: Live) -> None:
    large = b"\xff\xd8" + bytes(21 << 20)
    answer = target.client.post("/predict", files={"image": ("a.jpg", large, "image/jpeg")})
    assert answer.status_code == 413


def test_endless_headers_are_400(target: Live) -> None:
    with connect(target) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        try:
            for index in range(4000):
                connection.sendall(f"X-Flood-{index}: {'a' * 1000}\r\n".encode())
        except (BrokenPipeError, ConnectionResetError):
            return
        assert read_status(connection) in (0, 400)


def test_one_endless_header_is_400(target: Live) -> None:
    with connect(target) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Flood: ")
        try:
            for _ in range(2000):
                connection.sendall(b"a" * 10_000)
        except (BrokenPipeError, ConnectionResetError):
            return
        assert read_status(connection) in (0, 400)


def picture(kind: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (24, 24), (200, 30, 30)).save(data, kind)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "kind", "content", "status"),
    [
        ("a.jpg", "image/png", "JPEG", 415),
        ("a.png", "image/jpeg", "PNG", 415),
        ("a.jpg", "image/jpeg", "PNG", 415),
        ("a.png", "image/png", "JPEG", 415),
        ("a.webp", "image/webp", "BMP", 415),
        ("a.jpg", "image/jpeg", "GIF", 415),
        ("a.jpg", "image/jpeg", "TIFF", 415),
        ("a.svg", "image/svg+xml", "PNG", 415),
        ("a.jpg.exe", "image/jpeg", "JPEG", 415),
        ("jpg", "image/jpeg", "JPEG", 415),
        ("", "image/jpeg", "JPEG", 415),
        ("a.jpg", "", "JPEG", 415),
        ("A.JPG", "image/jpeg", "JPEG", 200),
        ("a.jpeg", "IMAGE/JPEG; x=y", "JPEG", 200),
        ("a.png", "image/png", "PNG", 200),
        ("a.bmp", "image/bmp", "BMP", 200),
        ("a.webp", "image/webp", "WEBP", 200),
        ("../../etc/a.jpg", "image/jpeg", "JPEG", 200),
    ],
)
def test_name_type_and_content_must_agree(
    target: Live, name: str, kind: str, content: str, status: int
) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="'
        + name.encode()
        + b'"\r\nContent-Type: '
        + kind.encode()
        + b"\r\n\r\n"
        + picture(content)
        + b"\r\n--b--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert target.client.post("/predict", content=body, headers=headers).status_code == status


@pytest.mark.parametrize(
    "tail", [b"<script>alert(1)</script>", b"PK\x03\x04" + bytes(500), b"%PDF-1.7"]
)
def test_what_trails_an_image_is_ignored(target: Live, tail: bytes) -> None:
    for kind, name, declared in (("JPEG", "a.jpg", "image/jpeg"), ("PNG", "a.png", "image/png")):
        data = picture(kind) + tail
        answer = target.client.post("/predict", files={"image": (name, data, declared)})
        assert answer.status_code == 200


@pytest.mark.parametrize("front", [b"%PDF-1.7\n", b"<html>", b"GIF89a/*", b"PK\x03\x04"])
def test_what_begins_as_something_else_is_415(target: Live, front: bytes) -> None:
    data = front + picture("JPEG")
    answer = target.client.post("/predict", files={"image": ("a.jpg", data, "image/jpeg")})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "key", [b"", b"short", b"0" * 64, "schlüssel-ключ".encode(), b"\xff\xfe" * 32, b"a" * 8000]
)
def test_a_wrong_key_is_401(target: Live, key: bytes) -> None:
    for route in ("/version", "/reload", "/predict", "/batch", "/nothing"):
        answer = target.client.post(route, headers=[(b"X-API-Key", key)])
        assert answer.status_code == 401


def test_a_missing_a_doubled_and_a_key_in_the_query_are_401(target: Live) -> None:
    import httpx

    key = target.service.key
    with httpx.Client(base_url=target.service.url, trust_env=False) as stranger:
        assert stranger.get("/version").status_code == 401
        assert stranger.get(f"/version?X-API-Key={key}&api_key={key}").status_code == 401
        assert stranger.get(f"/{key}").status_code == 401
        doubled = [("X-API-Key", key), ("X-API-Key", "x")]
        assert stranger.get("/version", headers=doubled).status_code == 401


def test_the_key_is_masked_wherever_a_caller_puts_it(target: Live) -> None:
    key = target.service.key
    headers = {"X-Request-ID": key, "Origin": f"https://{key}"}
    target.client.get(f"/{key}", headers=headers)
    target.client.post("/reload", json={"model_path": f"/{key}.onnx"})
    log = target.place.read_log("api.out") + target.place.read_log("api.err")
    assert key not in log
    assert "********" in log


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b\r\n\r\n",
        b"--b\r\nContent-Disposition: form-data; name=image; filename=a.jpg\r\n\r\nx",
        b"--b--\r\n",
        b"\x00" * 1000,
        b"--b\r\n" + b"X: y\r\n" * 5000,
        b"--b\r\nContent-Disposition: " + b"a" * 50_000 + b"\r\n\r\n",
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n' * 500 + b"--b--\r\n",
    ],
)
def test_a_malformed_form_is_refused(target: Live, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = target.client.post("/predict", content=body, headers=headers)
    assert answer.status_code in (400, 413, 422)


def test_a_deeply_nested_body_is_400(target: Live) -> None:
    headers = {"Content-Type": "application/json"}
    answer = target.client.post("/reload", content=b"[" * 60_000, headers=headers)
    assert answer.status_code == 400


def test_the_sixty_first_request_is_429_but_operators_get_in(
    tmp_path: Path,
) -> None:
    place = make_place(tmp_path)
    with start_service(place.config_path) as service:
        running = open_live(service, place)
        statuses = [running.predict(place.images[0]).status_code for _ in range(62)]
        assert statuses.count(429) >= 1
        assert statuses[:60] == [200] * 60
        refused = running.predict(place.images[0])
        assert int(refused.headers["Retry-After"]) >= 1
        assert running.reload(place.first).status_code == 200


def test_a_request_that_does_not_arrive_in_time_is_ended(tmp_path: Path) -> None:
    place = make_place(tmp_path, "service: {body_timeout_s: 0.2}\n")
    with start_service(place.config_path) as service:
        running = open_live(service, place)
        with connect(running) as connection:
            lines = ("Content-Type: multipart/form-data; boundary=b", "Content-Length: 100")
            connection.sendall(head(running, "/predict", *lines) + b"--b")
            assert read_status(connection) == 400
        with connect(running) as connection:
            connection.sendall(head(running, "/nothing", "Content-Length: 100"))
            assert read_status(connection) == 404
            connection.settimeout(20)
            while connection.recv(4096):
                pass
        assert running.client.get("/health").status_code == 200
