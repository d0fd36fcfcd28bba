"""Where a library or foreign code raises, the answer names the stage and the service goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from opslib.inference.preprocess import Preprocessor, load_preprocessor
from opslib.serving.decoding import UploadDecoder
from opslib.serving.failures import RefusalError
from opslib.serving.reload import Reloader, StageError
from opslib.serving.service import Service
from opslib.serving.start import load_first_model
from opslib.serving.together import classify
from opslib.serving.uploads import Upload
from tests.models import write_onnx
from tests.serving.conftest import SIZE, Live, Place, write_card


class OwnError(Exception):
    """As a library's own: of no base that others know."""


def fail(*_: object) -> Any:
    raise OwnError("it is\n broken")


def write_picky(path: Path) -> Path:
    """Write a model over which ONNX Runtime raises for a bright image alone."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("ReduceMean", ["flat", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "bright"], ["over"]),
        helper.make_node("Ceil", ["over"], ["whole"]),
        helper.make_node("Relu", ["whole"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["looked_up"]),
        helper.make_node("Add", ["flat", "looked_up"], ["logits"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([1], "int64"), "axes"),
        numpy_helper.from_array(np.float32(1.5), "bright"),
        numpy_helper.from_array(np.zeros((1, 3), "float32"), "table"),
    ]
    shape = ["N", 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "picky",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(model, path)
    return path


def write_grey(path: Path, level: int) -> Path:
    Image.new("RGB", (20, 20), (level, level, level)).save(path)
    return path


def test_an_image_over_which_the_model_raises_is_500_with_the_stage(
    live: Live, tmp_path: Path
) -> None:
    assert live.reload(write_picky(live.place.export / "picky.onnx")).status_code == 200
    bright, dark = write_grey(tmp_path / "bright.png", 255), write_grey(tmp_path / "dark.png", 0)
    answer = live.predict(bright, "a.png", "image/png")
    assert answer.status_code == 500
    said = answer.json()
    assert (said["code"], said["stage"]) == ("stage_failed", "inference")
    assert said["detail"].startswith("picky.onnx: batch 1 does not run: ")
    assert said["hint"]
    assert live.predict(dark, "a.png", "image/png").status_code == 200
    live.reload(live.place.first)
    assert '"stage": "inference"' in live.place.read_log("api.err")


def test_preprocessing_that_raises_is_500_with_the_stage(service: Service, place: Place) -> None:
    service.reloader.start_with(place.first)
    decoder = UploadDecoder(
        Preprocessor("own:prepare", fail, None),
        allowed_exts=[".jpg"],
        max_pixels=10**6,
        max_total_pixels=10**6,
    )
    upload = Upload("a.jpg", "image/jpeg", io.BytesIO(place.images[0].read_bytes()))
    [[refusal]] = classify(iter([[upload]]), generations=service.generations, decoder=decoder)
    assert isinstance(refusal, RefusalError)
    assert (refusal.status_code, refusal.extra["stage"]) == (500, "preprocess")
    assert refusal.detail == "preprocess raised OwnError; see api.err"


def test_a_model_over_which_onnx_runtime_raises_here_is_passed_over_at_a_start(
    service: Service,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = onnxruntime.InferenceSession.run

    def run_but_the_second(session: Any, *args: Any) -> Any:
        return fail() if place.second.name in session._model_path else run(session, *args)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run_but_the_second)
    load_first_model(service)
    assert service.generations.require().model.path == place.first
    assert "not served: model-b.onnx: batch 4 does not run: it is broken" in caplog.messages


def test_foreign_preprocessing_that_raises_on_a_golden_image_refuses_in_one_line(
    service: Service, place: Place
) -> None:
    service.reloader.preprocessor = Preprocessor("own:prepare", fail, None)
    with pytest.raises(StageError, match=r"own:prepare raised OwnError: it is broken") as caught:
        service.reloader.start_with(place.first)
    assert caught.value.stage == "trial"


@pytest.mark.parametrize(
    "rows", ["numpy.zeros((3, size, size))", "numpy.zeros((1, 3, size, size))"]
)
def test_foreign_preprocessing_that_returns_no_batch_is_not_blamed_on_the_image(
    service: Service, place: Place, tmp_path: Path, rows: str
) -> None:
    module = f"prepare_{sum(rows.encode())}"
    code = f"import numpy\ndef prepare(paths, size):\n    return {rows}\n"
    (tmp_path / f"{module}.py").write_text(code)
    service.reloader.start_with(place.first)
    decoder = UploadDecoder(
        load_preprocessor(f"{module}:prepare", tmp_path),
        allowed_exts=[".jpg"],
        max_pixels=10**6,
        max_total_pixels=10**6,
    )
    data = place.images[0].read_bytes()
    uploads = [Upload("a.jpg", "image/jpeg", io.BytesIO(data)) for _ in range(2)]
    [[refusal]] = classify(iter([uploads]), generations=service.generations, decoder=decoder)
    assert isinstance(refusal, RefusalError)
    assert (refusal.status_code, refusal.code) == (500, "stage_failed")
    assert f"{module}:prepare returned shape" in refusal.detail


@pytest.mark.parametrize(
    ("name", "kind", "exif"),
    [("a.png", "image/png", b"II*\0"), ("a.jpg", "image/jpeg", b"Exif\0\0II*\0")],
)
def test_an_image_whose_exif_data_is_cut_off_is_damaged(
    live: Live, tmp_path: Path, name: str, kind: str, exif: bytes
) -> None:
    Image.new("RGB", (24, 24)).save(tmp_path / name, exif=exif, dpi=(72, 72))
    answer = live.predict(tmp_path / name, name, kind)
    assert (answer.status_code, answer.json()["code"]) == (422, "damaged_image")


def test_a_model_is_loaded_anew_once_its_card_is_another(
    service: Service, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reloader, "_try", lambda *_: None)  # a process for each model
    path = write_onnx(place.export / "model-bare.onnx", size=SIZE)
    bare = service.reloader.reload_now(path.name)
    assert bare.warning is not None
    assert service.reloader.reload_now(path.name).resident
    write_card(path, place.images)
    carded = service.reloader.reload_now(path.name)
    assert (carded.resident, carded.warning) == (False, None)
    assert carded.generation.model.class_names
    path.with_suffix(".json").write_text("{")
    with pytest.raises(StageError, match="cannot be read") as caught:
        service.reloader.reload_now(path.name)
    assert caught.value.stage == "read"


def test_the_session_that_will_serve_is_asked_the_golden_images_of_a_card_without_digests(
    service: Service, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reloader, "_try", lambda *_: None)  # which would find it too
    card = write_card(place.first, place.images)
    other = write_card(write_onnx(place.export / "other.onnx", size=SIZE, seed=9), place.images)
    changed = card.model_copy(update={"files": (), "golden": other.golden})
    changed.write(place.first.with_suffix(".json"))
    with pytest.raises(StageError) as caught:
        service.reloader.start_with(place.first)
    assert caught.value.stage == "golden"
