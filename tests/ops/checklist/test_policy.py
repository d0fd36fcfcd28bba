"""H-6, H-9: strangers, browsers and uploads, tried on the running service."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Request, UploadFile
from fastapi.middleware.cors import CORSMiddleware

from opslib.ops.checklist.items import Answer
from opslib.ops.checklist.policy import (
    MIB,
    check_cors,
    check_strangers,
    check_uploads,
    offer_oversize,
)
from opslib.serving.staging import start_service
from tests.ops.checklist.conftest import ORIGIN, Plant, write_env
from tests.serving.conftest import make_place


@contextmanager
def start_app(app: FastAPI) -> Iterator[str]:
    """A foreign service under uvicorn on a free port; yields its address."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Our service as somebody in a hurry runs it: any origin, no limit to speak of."""
    place = make_place(tmp_path_factory.mktemp("careless"))
    told = {"CORS_ALLOW_ORIGINS": "*", "MAX_UPLOAD_MB": "100000"}
    key = write_env(place.config_path.parent, **told)
    with start_service(place.config_path, variables={"API_KEY": key, **told}) as service:
        yield Plant(place, service)


def lines(answer: Answer) -> str:
    return "\n".join(answer.evidence)


def test_a_service_as_it_should_be_is_ok(plant: Plant) -> None:
    for check in (check_strangers, check_cors, check_uploads):
        answer = check(plant.visit())
        assert answer.state == "ok", answer
    assert f"let in: {ORIGIN}" in lines(check_cors(plant.visit()))
    assert "refused (413, by its size alone)" in lines(check_uploads(plant.visit()))


def test_any_origin_let_in_has_failed(careless: Plant) -> None:
    answer = check_cors(careless.visit())
    assert answer.state == "failed"
    assert "a page from https://checklist.invalid is let in" in lines(answer)
    assert "CORS_ALLOW_ORIGINS in .env is *" in lines(answer)
    assert "CORS_ALLOW_ORIGINS" in (answer.next_step or "")


def test_an_upload_limit_that_is_off_has_failed(careless: Plant) -> None:
    answer = check_uploads(careless.visit())
    assert answer.state == "failed"
    assert "21 MiB is answered" in lines(answer)
    assert "MAX_UPLOAD_MB=20" in (answer.next_step or "")


def test_a_limit_above_the_policy_has_failed_and_a_lower_one_is_ok(plant: Plant) -> None:
    assert check_uploads(plant.visit(checklist__upload_limit_mb="5")).state == "failed"
    assert check_uploads(plant.visit(checklist__upload_limit_mb="30")).state == "ok"


def test_an_origin_in_env_that_the_service_does_not_know_yet_wants_attention(
    plant: Plant,
) -> None:
    env_file = plant.folder / ".env"
    kept = env_file.read_text()
    env_file.write_text(kept.replace(ORIGIN, f"{ORIGIN},https://new.pillsnap.co.kr"))
    try:
        answer = check_cors(plant.visit())
    finally:
        env_file.write_text(kept)
    assert answer.state == "attention"
    assert "https://new.pillsnap.co.kr" in lines(answer)
    assert "restart the service" in (answer.next_step or "")


def test_a_service_that_echoes_origins_that_look_alike_has_failed(plant: Plant) -> None:
    app = FastAPI()
    app.add_middleware(
        CORSMiddleware,
        allow_origin_regex=r"https://pillsnap\.co\.kr.*",
        allow_methods=["*"],
        allow_headers=["*"],
    )
    with start_app(app) as url:
        answer = check_cors(plant.visit(client__url=url))
    assert answer.state == "failed"
    assert "https://pillsnap.co.kr.checklist.invalid" in lines(answer)
    assert "https://checklist.invalid is" not in lines(answer)


def test_a_development_origin_wants_attention_outside_the_demo(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    told = {"CORS_ALLOW_ORIGINS": f"http://localhost:3000,{ORIGIN}"}
    key = write_env(place.config_path.parent, **told)
    with start_service(place.config_path, variables={"API_KEY": key, **told}) as service:
        there = Plant(place, service)
        answer = check_cors(there.visit())
        (place.config.exp_dir / ".demo.json").write_text("{}")
        assert check_cors(there.visit()).state == "ok"
    assert answer.state == "attention"
    assert "development origin" in lines(answer)


def test_a_foreign_service_that_counts_what_arrives_is_ok(plant: Plant) -> None:
    app = FastAPI()
    received = []

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, str]:
        count = 0
        async for chunk in request.stream():
            count += len(chunk)
            received.append(len(chunk))
            if count > 20 * MIB:
                raise HTTPException(413)
        raise HTTPException(415)

    with start_app(app) as url:
        answer = check_uploads(plant.visit(client__url=url))
    assert answer.state == "ok", answer
    assert "(413)" in lines(answer)


def test_a_foreign_service_that_takes_anything_has_failed(plant: Plant) -> None:
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "OPTIONS"])
    async def anything(path: str) -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict/really")
    async def predict(image: UploadFile) -> dict[str, str]:
        return {}

    with start_app(app) as url:
        strangers = check_strangers(plant.visit(client__url=url))
        uploads = check_uploads(plant.visit(client__url=url))
    assert strangers.state == "failed"
    assert "POST /reload without a key: 200, not 401" in lines(strangers)
    assert uploads.state == "failed"
    assert "a text is classified as if it were an image" in lines(uploads)


def test_a_stranger_with_any_key_let_in_has_failed(plant: Plant) -> None:
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def anything(path: str, request: Request) -> dict[str, str]:
        if "x-api-key" not in request.headers:
            raise HTTPException(401)
        return {"status": "ok"}

    with start_app(app) as url:
        answer = check_strangers(plant.visit(client__url=url))
    assert answer.state == "failed"
    assert "with a wrong key: 200" in lines(answer)
    assert "without a key" not in lines(answer)


def test_a_service_that_is_down_cannot_be_tried_and_that_is_said(resting: Plant) -> None:
    for check in (check_strangers, check_cors, check_uploads):
        answer = check(resting.visit())
        assert answer.state == "unknown", answer
        assert answer.next_step == "first the service itself: see Health, inside"


def test_no_more_is_sent_than_the_answer_needs(plant: Plant) -> None:
    sent = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            connection.settimeout(10)
            sent.append(len(head.partition(b"\r\n\r\n")[2]))
            while chunk := connection.recv(65536):
                sent.append(len(chunk))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        offer = offer_oversize(url, "key", 20, 5.0)
        thread.join(15)
    assert (offer.status, offer.declared) == (413, True)
    assert sum(sent) == 0


def test_the_probes_leave_no_error_in_the_service_log(plant: Plant) -> None:
    for check in (check_strangers, check_cors, check_uploads):
        check(plant.visit())
    log = plant.place.read_log("api.err")
    assert "checklist.invalid" in log
    assert '"level": "ERROR"' not in log
