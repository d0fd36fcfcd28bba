"""Switching one of the models of a two-stage service: of the right kind, checked, never claimed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opslib.cli import app
from opslib.core.errors import InputError, ModelError, OpsError, ParameterError
from opslib.core.kinds import pick_classifier, pick_kind
from opslib.core.models import find_model_files
from opslib.core.sections import ClientSection
from opslib.core.served import ServedModel, keep_served
from opslib.inference.find_model import find_onnx
from opslib.inference.trial import TrialResult, try_model
from opslib.ops.release.rollback import find_stable
from opslib.serving.client import ServiceError
from opslib.serving.live import LiveVersion, read_version_answer
from opslib.serving.precheck import Precheck
from opslib.telling.doors import call_app
from tests.two_stage import CLASSIFICATION, DETECTION, TwoStage, make_two_stage


@pytest.fixture
def house(tmp_path: Path) -> TwoStage:
    return make_two_stage(tmp_path, each=3)


def run(house: TwoStage, *arguments: object) -> int:
    return call_app(app, [*map(str, arguments), "--config", str(house.config_path)])


@pytest.mark.parametrize("kind", [DETECTION, CLASSIFICATION])
def test_a_rollback_goes_back_to_the_model_before_of_its_own_kind(
    house: TwoStage, kind: str
) -> None:
    with house.serve() as service:
        before = service.live
        assert run(house, "rollback", "--kind", kind) == 0
        assert service.live == before | {kind: house.models[kind][1]}


def test_what_our_own_service_served_decides_no_rollback_of_another_service(
    house: TwoStage,
) -> None:
    oldest, kind = house.classifiers[0], pick_classifier(house.config)
    keep_served(
        house.config,
        ServedModel(
            path=oldest,
            sha256=find_model_files(oldest).digest(),
            version_tag=oldest.stem,
            generation=1,
            switched_at_utc="2026-11-01T00:00:00+00:00",
        ),
    )
    with house.serve() as service:
        assert run(house, "rollback", "--kind", CLASSIFICATION) == 0
        assert service.live[CLASSIFICATION] == house.classifiers[1]
    newest = house.classifiers[-1]
    ours = LiveVersion(str(newest), find_model_files(newest).digest(), None, None)
    assert find_stable(house.config, ours, kind).path == oldest
    assert find_stable(house.config, None, kind).path == newest


def test_our_own_service_says_which_kind_it_serves_and_which_it_does_not(
    house: TwoStage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(*_given: object, on_ready: Callable[[str, str], None], **_options: object) -> None:
        on_ready("http://127.0.0.1:1", "some-model")

    monkeypatch.setattr("opslib.serving.server.serve", serve)
    assert run(house, "serve") == 0
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "note: of 2 kinds it serves classification alone, and not detection"


def test_a_dry_run_of_a_reload_judges_the_model_and_posts_nothing(
    house: TwoStage, capsys: pytest.CaptureFixture[str]
) -> None:
    env, model = (house.root / ".env").read_text(), house.classifiers[0]
    broken = house.export / "classification-broken.onnx"
    broken.write_bytes(b"no model at all")
    with house.serve() as service:
        assert run(house, "reload", "--dry-run", "--persist", "--path", model) == 0
        with pytest.raises(ModelError):
            run(house, "reload", "--dry-run", "--path", broken)
        assert service.asked == []
    said = capsys.readouterr().out
    assert f"would be asked to switch to {model}" in said
    assert "dry run: nothing was changed" in said
    assert (house.root / ".env").read_text() == env


def test_a_rollback_without_a_service_says_what_to_do(
    house: TwoStage, capsys: pytest.CaptureFixture[str]
) -> None:
    house.config_path.write_text(
        f"{house.config_path.read_text()}client: {{url: 'http://127.0.0.1:9'}}\n"
    )
    with pytest.raises(ServiceError, match="cannot be reached: Connection refused"):
        run(house, "rollback", "--kind", DETECTION, "--dry-run")
    assert "hint: is the service up?" in capsys.readouterr().out


def test_a_copy_of_the_live_model_is_no_model_to_go_back_to(house: TwoStage) -> None:
    restored = house.root / "exp" / "releases" / "restored" / "r" / "export"
    restored.mkdir(parents=True)
    live = restored / house.detectors[-1].name
    live.write_bytes(house.detectors[-1].read_bytes())
    with house.serve() as service:
        assert run(house, "reload", "--path", live) == 0
        assert run(house, "rollback", "--kind", DETECTION) == 0
        assert service.live[DETECTION] == house.detectors[1]


def test_a_rollback_that_is_not_told_which_kind_names_them(house: TwoStage) -> None:
    with house.serve() as service:
        before = service.live
        with pytest.raises(ParameterError, match=r"detection, classification.*--kind"):
            run(house, "rollback")
        assert service.live == before


@pytest.mark.parametrize("kind", [DETECTION, CLASSIFICATION])
def test_a_model_is_posted_as_the_kind_that_its_name_says(house: TwoStage, kind: str) -> None:
    model = house.models[kind][0]
    with house.serve() as service:
        assert run(house, "reload", "--path", model) == 0
        assert service.asked == [{f"{kind}_path": str(model)}]
        assert service.live[kind] == model


def test_a_link_is_of_the_kind_of_what_it_means(house: TwoStage) -> None:
    with house.serve() as service:
        run(house, "reload", "--path", house.export / "latest_detection.onnx")
        assert list(service.asked[0]) == ["detection_path"]


def test_a_model_of_another_kind_than_was_said_is_refused(house: TwoStage) -> None:
    with house.serve() as service, pytest.raises(ParameterError, match=r"is of kind detection"):
        run(house, "reload", "--kind", CLASSIFICATION, "--path", house.detectors[0])
    assert service.asked == []


def test_without_kinds_a_detector_is_still_no_classifier(tmp_path: Path) -> None:
    fields = "{request_field: classification_path, path_field: classification_model_path}"
    house = make_two_stage(tmp_path, models="")
    # the newest export of all is a detector
    detector = house.export_model(DETECTION, 5)
    with house.serve() as service:
        text = house.config_path.read_text().replace("{url", fields[:-1] + ", url")
        house.config_path.write_text(text)
        with pytest.raises(ModelError, match=r"expected an output \[N, classes\]"):
            run(house, "reload", "--path", detector)
        assert run(house, "rollback") == 0
        assert service.live[CLASSIFICATION] == house.classifiers[0]
        assert service.live[DETECTION] == house.detectors[-1]


def test_a_classifier_of_other_classes_is_not_posted(house: TwoStage) -> None:
    from tests.models import write_onnx

    other = house.export / "classification-20261102-000000-abc1234.onnx"
    write_onnx(other, classes=7, size=16)
    with house.serve() as service, pytest.raises(ModelError, match="it has 7 classes, expected"):
        run(house, "reload", "--path", other)
    assert service.asked == []


def test_a_broken_candidate_is_passed_over_before_it_is_posted(
    house: TwoStage, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = house.detectors[1]
    seen = broken.stat()
    broken.write_bytes(b"no model at all")
    os.utime(broken, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    with house.serve() as service:
        assert run(house, "rollback", "--kind", DETECTION) == 0
        assert service.live[DETECTION] == house.detectors[0]
    assert "passed over" in capsys.readouterr().out


def test_where_version_does_not_say_what_is_live_no_rollback_is_planned(house: TwoStage) -> None:
    fields = {"detection_model_path": "detector"}
    with house.serve(fields=fields) as service:
        with pytest.raises(InputError, match=r"models\.detection\.path_field"):
            run(house, "rollback", "--kind", DETECTION, "--dry-run")
        assert service.asked == []


def test_a_switch_that_cannot_be_confirmed_is_not_called_undone(
    house: TwoStage, capsys: pytest.CaptureFixture[str]
) -> None:
    with house.serve(fields={"classification_model_path": "classifier"}) as service:
        with pytest.raises(ServiceError, match="not confirmed"):
            run(house, "reload", "--path", house.classifiers[0])
        assert service.live[CLASSIFICATION] == house.classifiers[0]
    said = capsys.readouterr().out
    assert "which model serves now is not known" in said
    assert "serves on" not in said
    assert "path_field" in said


def test_a_refused_model_leaves_the_one_that_version_names(
    house: TwoStage, capsys: pytest.CaptureFixture[str]
) -> None:
    with house.serve(), pytest.raises(ServiceError):
        run(house, "reload", "--path", "/nowhere/detection-x.onnx")
    said = " ".join(capsys.readouterr().out.split())
    assert f"the previous model serves on: {house.detectors[-1].name}" in said


def test_a_service_that_takes_another_field_has_a_hint_that_names_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    house = make_two_stage(tmp_path, models="")
    with house.serve():
        text = house.config_path.read_text()
        house.config_path.write_text(
            text.replace("{url", "{path_field: classification_model_path, url")
        )
        with pytest.raises(ServiceError, match="422"):
            run(house, "reload", "--path", house.classifiers[0])
    assert "client.request_field" in capsys.readouterr().out


def test_the_pin_of_the_kind_is_persisted_where_that_service_reads_it(tmp_path: Path) -> None:
    theirs = tmp_path / "serving" / ".env"
    theirs.parent.mkdir()
    theirs.write_text("DETECTION_MODEL_PATH=/d.onnx\nCLASSIFICATION_MODEL_PATH=/c.onnx\n")
    models = "models:\n  detection: {contract: any, pin_file: serving/.env}\n"
    models += "  classification: {pin_file: serving/.env}\n"
    house = make_two_stage(tmp_path, models=models)
    own = (house.root / ".env").read_text()
    with house.serve():
        run(house, "reload", "--persist", "--path", house.classifiers[0])
    assert theirs.read_text() == (
        f"DETECTION_MODEL_PATH=/d.onnx\nCLASSIFICATION_MODEL_PATH={house.classifiers[0]}\n"
    )
    assert (house.root / ".env").read_text() == own


def test_a_kind_that_is_not_loaded_may_get_any_of_its_models(house: TwoStage) -> None:
    with house.serve(missing={DETECTION}) as service:
        assert run(house, "rollback", "--kind", DETECTION) == 0
        assert service.live[DETECTION] == house.detectors[-1]


def test_the_reference_service_speaks_the_names_of_its_kind(house: TwoStage) -> None:
    from opslib.serving.client import ServiceClient
    from opslib.serving.staging import start_service

    with start_service(house.config_path) as service:
        client = ServiceClient(service.url, service.key, pick_classifier(house.config).client)
        with client:
            assert client.health().model_loaded is True
            before = client.version()
            assert before.model_path == str(house.classifiers[-1])
            client.reload(str(house.classifiers[0]))
            assert client.version().model_path == str(house.classifiers[0])


def test_a_relative_path_of_the_live_model_is_read_from_the_configurations_folder(
    house: TwoStage,
) -> None:
    newest = house.classifiers[-1]
    live = LiveVersion(str(newest.relative_to(house.root)), None, None, None)
    kind = pick_classifier(house.config)
    assert find_stable(house.config, live, kind).path == house.classifiers[1]


def test_a_link_to_a_model_of_another_kind_is_refused(house: TwoStage) -> None:
    house.link(DETECTION, house.classifiers[0])
    kind = pick_kind(house.config, DETECTION)
    with pytest.raises(ModelError, match="no detection model"):
        find_onnx(house.config, kind=kind)


def test_a_link_that_leads_nowhere_is_not_posted(house: TwoStage) -> None:
    link = house.export / "latest_detection.onnx"
    house.detectors[-1].unlink()
    with house.serve() as service, pytest.raises(ModelError, match="latest_detection"):
        run(house, "reload", "--path", link)
    assert service.asked == []


def test_a_classifier_under_a_detectors_name_is_not_posted(house: TwoStage) -> None:
    from tests.models import write_onnx

    disguised = house.export / "detection-20261102-000000-abc1234.onnx"
    write_onnx(disguised, classes=3, size=16)
    with house.serve() as service:
        with pytest.raises(ModelError, match=r"answers .*; the model in service"):
            run(house, "reload", "--path", disguised)
        assert service.asked == []


@pytest.mark.parametrize("fault", ["folder", "no text", "nowhere"])
def test_what_cannot_be_pinned_is_refused_before_the_switch(house: TwoStage, fault: str) -> None:
    env = house.root / "other.env"
    env.write_bytes((house.root / ".env").read_bytes())
    with house.serve() as service:
        text = house.config_path.read_text()
        pin = "detection: {contract: any, pin_file: theirs/.env"
        assert "detection: {contract: any" in text
        house.config_path.write_text(text.replace("detection: {contract: any", pin))
        theirs = house.root / "theirs" / ".env"
        if fault == "nowhere":
            theirs.parent.write_text("a file where a folder should be")
        else:
            theirs.parent.mkdir()
            theirs.mkdir() if fault == "folder" else theirs.write_bytes(b"A=\xff\n")
        with pytest.raises(OpsError, match="theirs"):
            run(house, "reload", "--path", house.detectors[0], "--persist", "--env-file", env)
        assert service.asked == []


@pytest.mark.parametrize(
    ("said", "empty", "known"),
    [
        ({"path": "/m.onnx"}, False, True),
        ({"digest": "abc"}, False, True),
        ({"path": None}, True, True),
        ({"path": None, "digest": "abc"}, False, True),
        ({"digest": None}, False, False),
        ({"path": ""}, False, False),
        ({"path": 7}, False, False),
        ({}, False, False),
    ],
)
def test_only_a_path_that_is_null_says_that_there_is_no_model(
    said: dict[str, object], empty: bool, known: bool
) -> None:
    found = read_version_answer(said, ClientSection(path_field="path", digest_field="digest"))
    assert (found.empty, found.said) == (empty, known)


def test_the_model_in_service_is_loaded_once_and_only_where_it_is_of_the_kind(
    house: TwoStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []

    def load(path: Path, **options: Any) -> TrialResult:
        loaded.append(path)
        return try_model(path, **options)

    monkeypatch.setattr("opslib.serving.precheck.try_model", load)
    kind = pick_kind(house.config, DETECTION)
    first, second, live = house.detectors
    check = Precheck(house.config, kind, LiveVersion(str(live), None, None, None))
    for model in (first, second):
        check(model)
    assert loaded == [live]
    other = house.models[CLASSIFICATION][-1]
    Precheck(house.config, kind, LiveVersion(str(other), None, None, None))(first)
    assert loaded == [live]
