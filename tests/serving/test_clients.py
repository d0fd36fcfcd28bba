"""What honest clients do that is rare: names as .NET sends them, HEAD, half a connection closed."""

from __future__ import annotations

import base64
import json
import socket
from urllib.parse import quote

import pytest

from opslib.serving.keys import HEADER
from tests.serving.conftest import Live

KOREAN = "\uc54c\uc57d 1.jpg"
WORD = base64.b64encode(KOREAN.encode()).decode()
HALVES = [base64.b64encode(one.encode()).decode() for one in (KOREAN[:2], KOREAN[2:])]


def post(live: Live, disposition: str) -> tuple[int, str]:
    """Post an image under a name that stands in the part's header as it is given."""
    data = live.place.images[0].read_bytes()
    head = f'Content-Disposition: form-data; name="image"; {disposition}\r\n'
    body = (
        b"--b\r\n" + head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + data + b"\r\n--b--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = live.client.post("/predict", content=body, headers=kind)
    return answer.status_code, answer.text


@pytest.mark.parametrize(
    "disposition",
    [
        f'filename="=?utf-8?B?{WORD}?="',
        f'filename="=?UTF-8?b?{HALVES[0]}?= =?utf-8?B?{HALVES[1]}?="',
        'filename="=?euc-kr?Q?=BE=CB=BE=E0.jpg?="',
        f"filename*=utf-8''{quote(KOREAN)}",
        f"filename*=UTF-8'ko'{quote(KOREAN)}",
        f'filename="{KOREAN}"',
        "filename*=no-such-charset''pill.jpg",
        "filename*=idna''%ffpill.jpg",
        "filename*=unicode_escape''%5cud800.jpg",
        'filename="=?utf-7?Q?+2AA-?=.jpg"',
    ],
)
def test_a_name_in_any_of_its_spellings_is_read(live: Live, disposition: str) -> None:
    status, text = post(live, disposition)
    assert status == 200, text


@pytest.mark.parametrize(
    "disposition",
    ['filename="=?utf-8?B?eC50eHQ=?="', "filename*=utf-8''x.txt", 'filename="=?utf-8?B?%%%?="'],
)
def test_what_a_spelling_hides_is_judged_as_it_reads(live: Live, disposition: str) -> None:
    assert post(live, disposition)[0] == 415


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("image; filename*=utf-8''a.jpg", ""),
        ("image", "; title=\"; filename*=utf-8''a.jpg\""),
        ("image", '; title="\\"; filename*=utf-8\'\'a.jpg"'),
    ],
)
def test_a_name_inside_another_parameter_makes_no_file(live: Live, field: str, more: str) -> None:
    head = f'Content-Disposition: form-data; name="{field}"{more}\r\n'
    body = b"--b\r\n" + head.encode() + b"Content-Type: image/jpeg\r\n\r\nx\r\n--b--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = live.client.post("/predict", content=body, headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (422, "file_missing")


def test_a_name_in_pieces_is_put_together(live: Live) -> None:
    assert post(live, "filename*0*=utf-8''pi%6cl; filename*1=.jpg")[0] == 200


@pytest.mark.parametrize(
    ("disposition", "status", "code"),
    [
        ("filename*=utf-8''a.jpg; filename*0=b", 422, "file_missing"),
        ("filename*=utf-8''a.jpg; filename*1*=b", 422, "file_missing"),
        ('filename="=?é?b?YQ==?="', 415, "extension"),
    ],
)
def test_a_name_that_cannot_be_read_is_none(
    live: Live, disposition: str, status: int, code: str
) -> None:
    answered, text = post(live, disposition)
    assert (answered, json.loads(text)["code"]) == (status, code)


def test_a_long_name_of_encoded_words_costs_nothing(live: Live) -> None:
    assert post(live, f'filename="{"=?a?q?" * 600}"')[0] == 415


def test_monitors_may_ask_for_the_head_alone(live: Live) -> None:
    answer = live.client.head("/health")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0
    assert live.client.head("/version").status_code == 200
    assert live.client.head("/version", headers={HEADER: "no"}).status_code == 401
    assert live.client.head("/predict").status_code == 405


@pytest.mark.parametrize("in_line", [1, 2])
def test_a_client_that_closes_its_half_gets_its_answers(live: Live, in_line: int) -> None:
    port = int(live.service.url.rpartition(":")[2])
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 20) as one:
        one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * in_line)
        one.shutdown(socket.SHUT_WR)
        while part := one.recv(65536):
            answer += part
    assert answer.count(b"HTTP/1.1 200") == in_line
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["status"] == "ok"


def test_half_a_request_and_no_more_is_let_go(live: Live) -> None:
    port = int(live.service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 20) as one:
        one.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
        one.shutdown(socket.SHUT_WR)
        one.settimeout(5)
        while one.recv(65536):
            pass
