"""The service contract, spoken to a real uvicorn on the loopback."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from opslib.core.errors import OpsError
from opslib.core.models import find_model_files
from opslib.core.served import read_served_state
from opslib.serving.load import LoadPlan, start_load
from opslib.serving.staging import start_service
from tests.models import write_images
from tests.serving.conftest import Live, Place, open_live
from tests.waiting import await_that


def test_health_is_public_and_says_what_runs(live: Live) -> None:
    live.reload(live.place.first)
    answer = httpx.get(f"{live.service.url}/health").json()
    assert answer["status"] == "ok"
    assert answer["model_loaded"] is True
    assert (answer["device"], answer["engine"]) == ("cpu", "onnx")
    assert answer["uptime_sec"] >= 0


def test_version_names_the_file_and_its_digest(live: Live) -> None:
    live.reload(live.place.first)
    version = live.version
    assert version["model_path"] == str(live.place.first)
    assert version["model_sha256"] == find_model_files(live.place.first).digest()
    assert version["version_tag"] == "model-a"
    assert version["num_classes"] == 3
    assert version["exported_at"] == "2026-11-01T00:00:00+00:00"


def test_predict_names_the_class_and_times_each_part(live: Live) -> None:
    answer = live.predict(live.place.images[0])
    content = answer.json()
    assert answer.status_code == 200
    assert content["class_name"] in ("round", "oval", "capsule")
    assert 0 < content["confidence"] <= 1
    assert set(content["time_ms"]) == {"preprocess", "inference", "total"}
    assert content["generation"] == int(answer.headers["X-Generation"])


def test_batch_answers_in_the_order_of_the_images(live: Live) -> None:
    images = live.place.images
    files = [("images", (path.name, path.read_bytes(), "image/jpeg")) for path in images]
    content = live.client.post("/batch", files=files).json()
    singles = [live.predict(path).json()["class_id"] for path in images]
    assert content["count"] == len(images)
    assert [result["class_id"] for result in content["results"]] == singles


@pytest.mark.parametrize("route", ["/health", "/version", "/nothing", "/predict"])
def test_every_answer_has_a_request_id_and_the_model_it_came_from(live: Live, route: str) -> None:
    headers = live.client.get(route, headers={"X-Request-ID": "drill-7"}).headers
    assert headers["X-Request-ID"] == "drill-7"
    assert headers["X-Model-SHA256"] == live.version["model_sha256"]
    assert int(headers["X-Generation"]) == live.version["generation"]


def test_a_request_is_one_json_line_with_its_id(live: Live) -> None:
    live.client.get("/version?note=private", headers={"X-Request-ID": "line-1"})
    await_that(lambda: "line-1" in live.place.read_log("api.out"), "its line")
    lines = [json.loads(line) for line in live.place.read_log("api.out").splitlines()]
    line = next(one for one in lines if one["request_id"] == "line-1")
    assert (line["path"], line["status"], line["method"]) == ("/version", 200, "GET")
    assert "private" not in live.place.read_log("api.out")


def test_a_log_that_was_renamed_loses_no_line(live: Live) -> None:
    log = live.place.config.exp_dir / "logs" / "api.out"
    kept = log.with_name("kept.out")
    plan = LoadPlan(
        url=live.service.url, images=tuple(live.place.images), requests=300, rate_per_s=300
    )
    before = len(log.read_text().splitlines())
    with start_load(plan, live.service.key) as load:
        while load.running and len(log.read_text().splitlines()) < before + 50:
            time.sleep(0.01)
        log.rename(kept)
        result = load.wait(30)
    lines = len(log.read_text().splitlines()) + len(kept.read_text().splitlines())
    kept.unlink()
    assert not result.failures
    assert lines - before == 300


@pytest.mark.parametrize(
    ("files", "status", "code"),
    [
        ({"image": ("a.gif", b"GIF89a", "image/gif")}, 415, "extension"),
        ({"image": ("a.jpg", b"x", "image/png")}, 415, "content_type"),
        ({"image": ("a.jpg", b"not an image", "image/jpeg")}, 415, "content_mismatch"),
        ({"picture": ("a.jpg", b"x", "image/jpeg")}, 422, "file_missing"),
    ],
)
def test_an_upload_that_cannot_be_used_says_why(
    live: Live, files: dict[str, tuple[str, bytes, str]], status: int, code: str
) -> None:
    answer = live.client.post("/predict", files=files)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"]


def test_sixteen_bit_grey_is_answered_as_the_same_image_of_eight(
    live: Live, tmp_path: Path
) -> None:
    levels = np.linspace(0, 0.4, 1024).reshape(32, 32)
    deep, plain = tmp_path / "deep.png", tmp_path / "plain.png"
    Image.fromarray((levels * 65535).astype(np.uint16)).save(deep)
    Image.fromarray((levels * 255).astype(np.uint8)).save(plain)
    answers = [live.predict(path, "a.png", "image/png").json() for path in (deep, plain)]
    assert answers[0]["class_id"] == answers[1]["class_id"]
    assert answers[0]["confidence"] == pytest.approx(answers[1]["confidence"], abs=0.01)


def test_a_damaged_image_is_422(live: Live) -> None:
    [path] = write_images(live.place.config_path.parent / "noise", 1, size=200)
    data = path.read_bytes()
    cut = data[: len(data) // 2]
    answer = live.client.post("/predict", files={"image": ("a.jpg", cut, "image/jpeg")})
    assert (answer.status_code, answer.json()["code"]) == (422, "damaged_image")


def test_seventeen_images_are_too_many(live: Live) -> None:
    one = live.place.images[0].read_bytes()
    files = [("images", (f"{index}.jpg", one, "image/jpeg")) for index in range(17)]
    assert live.client.post("/batch", files=files).status_code == 413


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"{}", "application/json", 422),
        (b'{"model_path": 3}', "application/json", 422),
        (b'{"model_path": "a.onnx", "more": 1}', "application/json", 422),
        (b"model_path=a", "application/x-www-form-urlencoded", 415),
    ],
)
def test_a_reload_request_that_is_malformed_is_refused(
    live: Live, body: bytes, kind: str, status: int
) -> None:
    answer = live.client.post("/reload", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status


def test_a_front_end_that_is_not_listed_gets_no_permission_and_is_logged(live: Live) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key"}
    good, bad = "https://pillsnap.co.kr", "https://evil.example"
    for origin, status in ((good, 200), (bad, 400)):
        answer = live.client.options("/predict", headers={"Origin": origin, **asked})
        assert answer.status_code == status
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) is (origin == good)
    refused = live.client.get("/health", headers={"Origin": bad})
    assert "Access-Control-Allow-Origin" not in refused.headers
    log = live.place.read_log("api.err")
    assert "CORS preflight allowed" in log
    assert "CORS preflight refused" in log
    assert "CORS origin refused" in log


def test_two_reloads_at_once_one_wins_the_other_is_409(live: Live) -> None:
    import threading

    statuses = []
    fresh = live.place.export / "model-fresh.onnx"
    fresh.write_bytes(live.place.first.read_bytes())
    threads = [
        threading.Thread(target=lambda: statuses.append(live.reload(fresh).status_code))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fresh.unlink()
    assert sorted(statuses) == [200, 409]


def test_a_model_without_a_card_is_served_as_unverified(live: Live) -> None:
    bare = live.place.export / "model-bare.onnx"
    bare.write_bytes(live.place.first.read_bytes())
    answer = live.reload(bare).json()
    assert answer["ok"] is True
    assert answer["verified"] is False
    assert live.reload(live.place.second).json()["verified"] is True
    bare.unlink()


def test_the_last_model_switched_in_is_served_after_a_restart(place: Place) -> None:
    with start_service(place.config_path) as service:
        running = open_live(service, place)
        assert running.version["version_tag"] == "model-b"
        generation = running.reload(place.first).json()["generation"]
    state = read_served_state(place.config)
    assert state is not None
    assert state.current.path == place.first
    assert state.previous[0].path == place.second
    with start_service(place.config_path) as service:
        version = open_live(service, place).version
        assert version["version_tag"] == "model-a"
        assert version["generation"] == generation + 1


def test_a_pinned_model_comes_first(place: Place) -> None:
    with start_service(place.config_path, variables={"MODEL_PATH": str(place.first)}) as service:
        assert open_live(service, place).version["version_tag"] == "model-a"


def test_a_pinned_model_that_is_refused_ends_the_start(place: Place) -> None:
    place.first.write_bytes(b"no model")
    variables = {"MODEL_PATH": str(place.first)}
    with (
        pytest.raises(OpsError, match="ended with 2: error: MODEL_PATH: stage read"),
        start_service(place.config_path, variables=variables),
    ):
        pass


def test_without_a_usable_model_the_service_starts_and_can_be_repaired(place: Place) -> None:
    aside = place.config_path.parent / "aside"
    place.export.rename(aside)
    place.export.mkdir()
    with start_service(place.config_path) as service:
        running = open_live(service, place)
        health = running.client.get("/health").json()
        assert (health["status"], health["model_loaded"]) == ("degraded", False)
        assert running.client.get("/version").json()["degraded"]["reason"] == health["reason"]
        assert running.predict(aside / "golden" / "0.jpg").status_code == 503
        place.export.rmdir()
        aside.rename(place.export)
        assert running.reload(place.first).status_code == 200
        assert running.predict(place.images[0]).status_code == 200


def test_stopping_finishes_what_is_in_flight(place: Place) -> None:
    import signal

    with start_service(place.config_path, variables={"RATE_LIMIT_PER_MIN": "100000"}) as service:
        plan = LoadPlan(
            url=service.url,
            images=tuple(place.images),
            requests=64,
            rate_per_s=None,
            route="/batch",
            batch_size=8,
            connections=4,
        )
        with start_load(plan, service.key) as load:
            log = place.config.exp_dir / "logs" / "api.out"
            while load.running and log.read_text().count("/batch") < 4:
                time.sleep(0.005)
            os.kill(service.pid, signal.SIGTERM)
            result = load.wait(30)
    lines = [json.loads(line) for line in place.read_log("api.out").splitlines()]
    begun = [line["status"] for line in lines if line["path"] == "/batch"]
    answered = [one for one in result.samples if one.status == 200]
    assert begun == [200] * len(answered)
