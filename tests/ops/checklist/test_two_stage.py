"""The checklist of a service with two models: each item that asks about models asks for each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.formatting import utc_now
from opslib.ops.checklist.doctor import examine, list_next_steps
from opslib.ops.checklist.items import Answer, Period, Visit
from opslib.ops.checklist.logs import check_api_log
from opslib.ops.checklist.policy import check_strangers
from opslib.ops.checklist.releases import check_release
from opslib.ops.checklist.run import run_checklist
from opslib.ops.checklist.service import check_inside, check_live_model, start_step
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
from tests.ops.checklist.conftest import answering, json_line
from tests.two_stage import TwoStage, TwoStageService, make_two_stage

EXTRA = "maintenance: {disks: [/]}\nonnx: {providers: [CPU]}\n"
KINDS = ("detection", "classification")


@pytest.fixture
def house(tmp_path: Path) -> TwoStage:
    return make_two_stage(tmp_path, extra=EXTRA)


@pytest.fixture
def service(house: TwoStage) -> Iterator[TwoStageService]:
    with house.serve() as running:
        yield running


def visit(house: TwoStage, **keys: str) -> Visit:
    url = house.config.client.url
    given = {"health__internal_url": f"{url}/health", **keys}
    variables = {f"PILLSNAP_{name.upper()}": one for name, one in given.items()}
    return Visit(load_config(house.config_path, variables), "daily", 24.0, utc_now())


def said(answer: Answer) -> list[str]:
    return list(answer.evidence)


def test_both_models_are_loaded_and_said(house: TwoStage, service: TwoStageService) -> None:
    answer = check_inside(visit(house))
    assert answer.state == "ok", answer
    assert said(answer)[1:] == [f"{kind}: a model is loaded, on cpu" for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_not_loaded_has_failed_by_its_name(house: TwoStage, kind: str) -> None:
    with house.serve(missing={kind}):
        inside, model = check_inside(visit(house)), check_live_model(visit(house))
    other = next(one for one in KINDS if one != kind)
    assert inside.state == model.state == "failed"
    assert said(inside)[0] == f"{kind}: it has no model: /predict answers 503"
    assert f"{other}: a model is loaded, on cpu" in said(inside)
    assert f"reload --kind {kind} --path MODEL" in (inside.next_step or "")
    assert said(model)[0] == f"{kind}: no model is served"


def test_what_health_does_not_say_is_not_said_and_never_ok(
    house: TwoStage, service: TwoStageService
) -> None:
    wrong = {"models__classification__loaded_field": "loaded.classifier"}
    answer = check_inside(visit(house, **wrong))
    assert answer.state == "unknown"
    assert said(answer)[0] == (
        "classification: not said: whether a model is loaded; /health has no loaded.classifier"
    )
    assert "models.classification.loaded_field" in (answer.next_step or "")
    assert "detection: a model is loaded, on cpu" in said(answer)


def test_a_service_that_is_asked_by_the_fields_of_another_layout_is_not_said_to_be_well(
    tmp_path: Path,
) -> None:
    house = make_two_stage(tmp_path, models="", extra=EXTRA)
    with house.serve(missing={"classification"}):
        inside, model = check_inside(visit(house)), check_live_model(visit(house))
    assert (inside.state, model.state) == ("unknown", "unknown")
    assert not [line for line in said(inside) if "a model is loaded, on" in line]
    assert "`client.loaded_field`" in (inside.next_step or "")
    assert said(model)[0].startswith("not said: which model is served; /version has neither")
    assert "`client.path_field`" in (model.next_step or "")


def test_a_degraded_service_of_two_models_has_failed_once(house: TwoStage) -> None:
    body = b'{"status":"degraded","models_loaded":{"detection":true,"classification":false}}'
    with answering(200, body) as url:
        answer = check_inside(visit(house, client__url=url, health__internal_url=f"{url}/health"))
    assert answer.state == "failed"
    assert len([line for line in said(answer) if "degraded" in line]) == 1
    assert "classification: it has no model: /predict answers 503" in said(answer)


def test_each_live_model_is_compared_with_its_link(
    house: TwoStage, service: TwoStageService
) -> None:
    answer = check_live_model(visit(house))
    assert answer.state == "ok", answer
    compared = "(the path was compared: there is no digest)"
    for kind, model in zip(KINDS, (house.detectors[-1], house.classifiers[-1]), strict=True):
        assert f"{kind}: live: {model.name} (digest unverified)" in said(answer)
        assert f"{kind}: it is latest_{kind}.onnx, {model.name} {compared}" in said(answer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_behind_its_link_wants_attention(
    house: TwoStage, service: TwoStageService, kind: str
) -> None:
    newer = house.export_model(kind, 7)
    house.link(kind, newer)
    answer = check_live_model(visit(house))
    assert answer.state == "attention"
    assert said(answer)[0] == f"{kind}: latest_{kind}.onnx means another model, {newer.name}"
    assert f"latest_{kind}.onnx" in (answer.next_step or "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_pinned_to_another_model_wants_attention(
    house: TwoStage, service: TwoStageService, kind: str
) -> None:
    first, last = house.models[kind][0], house.models[kind][-1]
    house.pin(**{kind: first})
    answer = check_live_model(visit(house))
    assert answer.state == "attention"
    named = f"{kind}: {kind.upper()}_MODEL_PATH in .env names another model, {first}"
    assert said(answer)[0] == f"{named}: a restart serves that"
    house.pin(**{kind: last})
    pinned = f"{kind}: {kind.upper()}_MODEL_PATH pins it: a restart brings back {last.name}"
    assert pinned in said(check_live_model(visit(house)))


def test_the_lines_of_a_kind_stand_together_those_of_the_worse_kind_first(
    house: TwoStage, service: TwoStageService
) -> None:
    house.link("classification", house.export_model("classification", 7))
    lines = said(check_live_model(visit(house)))
    assert [line.partition(":")[0] for line in lines] == ["classification"] * 2 + ["detection"] * 2
    assert "means another model" in lines[0]


def test_a_foreign_service_is_not_started_by_our_command(house: TwoStage) -> None:
    down = visit(house, client__url="http://127.0.0.1:9", health__internal_url="http://127.0.0.1:9")
    steps = [check_inside(down).next_step, check_api_log(down).next_step]
    steps += list_next_steps(list(examine(down.config)))
    assert any("start the service" in (step or "") for step in steps[2:])
    assert all("start the service" in (step or "") for step in steps[:2])
    assert not [step for step in steps if "make serve" in (step or "")]


def test_only_a_service_at_our_own_port_of_this_host_is_started_by_our_command(
    tmp_path: Path,
) -> None:
    place = make_two_stage(tmp_path, models="")
    told = {
        url: start_step(visit(place, client__url=url).config)
        for url in ("http://localhost:8000/", "http://localhost:8001", "http://192.0.2.1:8000")
    }
    assert list(told.values()) == [
        "start the service: `make serve`",
        "start the service",
        "start the service",
    ]


def test_the_doctor_looks_at_the_model_of_each_kind(house: TwoStage) -> None:
    for model in house.detectors:
        model.unlink()
    rows = [one for one in examine(house.config) if one.area == "model" and one.state != "note"]
    assert [(one.state, one.seen.partition(":")[0]) for one in rows] == [
        ("problem", "detection"),
        ("ok", "classification"),
    ]
    assert "demo" not in f"{rows[0].seen} {rows[0].next_step}"


def test_which_of_the_live_models_is_in_no_release_is_said(
    house: TwoStage, service: TwoStageService
) -> None:
    classifier = house.classifiers[-1]
    request = ReleaseRequest(onnx=classifier, only=True, allow_missing_metrics=True)
    build_release(house.config, request)
    answer = check_release(visit(house))
    assert answer.state == "attention"
    detector = house.detectors[-1]
    assert said(answer)[0] == f"detection: the live model ({detector}) is in no release"
    assert said(answer)[-1].startswith("classification: the live model is in release-")


@pytest.mark.parametrize("period", ["daily", "weekly", "monthly"])
@pytest.mark.parametrize("fault", ["none", "mute", "broken", "down"])
def test_every_item_has_an_answer_whatever_the_service_does(
    house: TwoStage, period: Period, fault: str
) -> None:
    answers = {"mute": "hangs", "broken": "fails"}
    with house.serve(version_answer=answers.get(fault, "says")) as running:
        if fault == "down":
            running.stop()
        given = visit(house, checklist__timeout_s="0.5").config
        record = run_checklist(given, period)
    for item in record.items:
        assert item.evidence, item
        assert "Traceback" not in " ".join(item.evidence)
    live = record.item("model")
    assert live is not None
    assert live.state == {"none": "ok", "broken": "failed"}.get(fault, "unknown")


def test_a_route_that_the_service_does_not_have_is_no_open_one(
    house: TwoStage, service: TwoStageService
) -> None:
    answer = check_strangers(visit(house))
    assert answer.state == "ok", answer
    assert said(answer) == [
        "3 routes closed without a key and with a wrong one",
        "POST /batch is not there (404)",
    ]


def test_a_service_without_any_of_the_routes_is_not_closed(house: TwoStage) -> None:
    with answering(404, b"{}") as url:
        answer = check_strangers(visit(house, client__url=url))
    assert answer.state == "failed"
    assert "GET /version without a key: 404, not 401" in said(answer)


def test_its_errors_are_found_where_it_logs_them(house: TwoStage) -> None:
    logs = house.config.logs_dir
    logs.mkdir()
    (logs / "api.err").write_text("")
    (logs / "api.out").write_text(
        json_line("classifier is none", at=utc_now() - timedelta(hours=1))
    )
    keys = {"checklist__api_logs": "api.err,api.out"}
    assert check_api_log(visit(house)).state == "ok"
    assert check_api_log(visit(house, **keys)).state == "attention"
