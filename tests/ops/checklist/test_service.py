"""H-9: the daily questions to the service: inside, outside, and which model."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx

from opslib.core.files import link_atomic
from opslib.ops.checklist.service import check_inside, check_live_model, check_outside
from tests.ops.checklist.conftest import DEGRADED, Plant, answering, closed_port


def test_a_healthy_service_is_ok_inside_and_outside(plant: Plant) -> None:
    inside = check_inside(plant.visit())
    assert inside.state == "ok", inside
    assert "a model is loaded, on cpu" in inside.evidence
    assert check_outside(plant.visit()).state == "ok"


def test_a_service_that_is_down_has_failed_with_the_command_to_start_it(resting: Plant) -> None:
    port = resting.service.url.rpartition(":")[2]
    answer = check_inside(resting.visit(service__port=port))
    assert answer.state == "failed"
    assert "connection refused" in answer.evidence[0]
    assert "make serve" in (answer.next_step or "")
    outside = check_outside(resting.visit())
    assert outside.state == "failed"
    assert outside.evidence[1] == "nor does it inside"


def test_a_tunnel_that_is_down_is_told_from_a_service_that_is(plant: Plant) -> None:
    closed = f"http://127.0.0.1:{closed_port()}/health"
    answer = check_outside(plant.visit(health__external_url=closed))
    assert answer.state == "failed"
    assert answer.evidence[1] == "the service answers inside: it is the tunnel"
    assert "sc.exe start Cloudflared" in (answer.next_step or "")


def test_the_edge_that_answers_for_a_dead_tunnel_is_no_health(plant: Plant) -> None:
    for status, body in ((530, b"error 1033"), (200, b"<html>log in</html>")):
        with answering(status, body, "text/html") as edge:
            answer = check_outside(plant.visit(health__external_url=f"{edge}/health"))
        assert answer.state == "failed", status


def test_no_outside_address_is_no_fault_of_the_demo_alone(resting: Plant) -> None:
    assert check_outside(resting.visit(health__external_url="")).state == "attention"
    (resting.place.config.exp_dir / ".demo.json").write_text("{}")
    assert check_outside(resting.visit(health__external_url="")).state == "not applicable"


def test_a_service_without_a_model_has_failed(plant: Plant) -> None:
    body = b'{"status":"ok","device":"cpu","engine":"onnx","model_loaded":false,"uptime_sec":1}'
    with answering(200, body) as url:
        visit = plant.visit(client__url=url, health__internal_url=f"{url}/health")
        answer = check_inside(visit)
    assert answer.state == "failed"
    assert "no model" in answer.evidence[0]


def test_a_degraded_service_has_failed_inside_and_outside_and_what_to_do_is_said(
    plant: Plant,
) -> None:
    told = "degraded: wanted model-b, serves model-a (it could not be loaded)"
    with answering(200, DEGRADED) as url:
        keys = {"client__url": url, "health__internal_url": f"{url}/health"}
        visit = plant.visit(**keys, health__external_url=f"{url}/health")
        inside, outside = check_inside(visit), check_outside(visit)
    for answer in (inside, outside):
        assert answer.state == "failed"
        assert told in answer.evidence[0]
        assert "pillops reload --path" in (answer.next_step or "")


def test_the_live_model_of_a_degraded_service_has_failed_and_both_paths_are_named(
    plant: Plant,
) -> None:
    path = plant.place.second
    body = (
        f'{{"model_path": "{path}", "version_tag": "model-b", "degraded": {{"wanted_path": '
        '"/models/model-z.onnx", "wanted_tag": "model-z", "why": "it was switched in last", '
        '"reason": "it could not be loaded"}}'
    )
    with answering(200, body.encode()) as url:
        answer = check_live_model(plant.visit(client__url=url))
    assert answer.state == "failed"
    assert answer.evidence[0] == (
        "/models/model-z.onnx (it was switched in last) should be served: it could not be loaded"
    )
    assert f"keep the live one: `pillops reload --path {path}`" in (answer.next_step or "")


def test_a_pin_that_leads_in_a_circle_is_told(plant: Plant) -> None:
    env_file, loop = plant.folder / ".env", plant.folder / "loop.onnx"
    kept = env_file.read_text()
    loop.symlink_to(loop.name)
    env_file.write_text(f"{kept}MODEL_PATH=loop.onnx\n")
    try:
        answer = check_live_model(plant.visit())
    finally:
        env_file.write_text(kept)
        loop.unlink()
    assert answer.state == "attention"


def test_a_service_that_accepts_and_says_nothing_costs_no_more_than_the_timeout(
    plant: Plant,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        keys = {"client__url": url, "health__internal_url": f"{url}/health"}
        visit = plant.visit(**keys, checklist__timeout_s="0.5")
        assert check_inside(visit).state == "failed"
        answer = check_live_model(visit)
    assert answer.state == "unknown"
    assert "no answer within 0.5 s" in answer.evidence[0]


def test_the_live_model_is_the_latest(plant: Plant) -> None:
    answer = check_live_model(plant.visit())
    assert answer.state == "ok", answer
    assert any("it is latest.onnx, model-b.onnx" in line for line in answer.evidence)
    (live,) = answer.models
    assert (live.kind, live.name) == ("model", "model-b.onnx")
    assert f"sha256 {str(live.sha256)[:12]}…" in answer.evidence[0]


def test_a_model_behind_the_latest_wants_attention(plant: Plant) -> None:
    latest = plant.place.export / "latest.onnx"
    link_atomic(latest, plant.place.first.name)
    try:
        answer = check_live_model(plant.visit())
    finally:
        link_atomic(latest, plant.place.second.name)
    assert answer.state == "attention"
    assert "latest.onnx means another model, model-a.onnx" in answer.evidence[0]
    assert f"pillops reload --path {latest}" in (answer.next_step or "")


def test_a_rollback_says_since_when(plant: Plant) -> None:
    headers = plant.service.headers
    with httpx.Client(base_url=plant.service.url, headers=headers, timeout=60) as client:
        assert client.post("/reload", json={"model_path": "model-a.onnx"}).status_code == 200
        try:
            answer = check_live_model(plant.visit())
        finally:
            client.post("/reload", json={"model_path": "model-b.onnx"})
    assert answer.state == "attention"
    assert "(the live one was switched in at 20" in answer.evidence[0]


def test_a_latest_that_leads_nowhere_wants_attention(plant: Plant) -> None:
    latest = plant.place.export / "latest.onnx"
    link_atomic(latest, "gone.onnx")
    try:
        answer = check_live_model(plant.visit())
    finally:
        link_atomic(latest, plant.place.second.name)
    assert answer.state == "attention"
    assert "points at nothing" in answer.evidence[0]


def test_a_pin_that_a_restart_would_follow_wants_attention(plant: Plant) -> None:
    env_file = plant.folder / ".env"
    kept = env_file.read_text()
    env_file.write_text(f"{kept}MODEL_PATH=exp/export/model-a.onnx\n")
    try:
        answer = check_live_model(plant.visit())
        env_file.write_text(f"{kept}MODEL_PATH=exp/export/latest.onnx\n")
        assert check_live_model(plant.visit()).state == "ok"
    finally:
        env_file.write_text(kept)
    assert answer.state == "attention"
    assert "names another model" in answer.evidence[0]


def test_a_foreign_service_without_a_digest_is_compared_by_path(plant: Plant) -> None:
    path = plant.place.second
    with answering(200, f'{{"model_path": "{path}"}}'.encode()) as url:
        answer = check_live_model(plant.visit(client__url=url))
    assert answer.state == "ok"
    assert any("the path was compared" in line for line in answer.evidence)


def test_a_key_that_the_service_does_not_know_has_failed(plant: Plant, tmp_path: Path) -> None:
    with answering(401, b'{"detail":"the X-API-Key header is wrong"}') as url:
        answer = check_live_model(plant.visit(client__url=url))
    assert answer.state == "failed"
    assert "rotated without a restart" in (answer.next_step or "")
