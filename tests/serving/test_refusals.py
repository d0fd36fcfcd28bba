"""A bad model is refused by the stage that found it; the old one serves on in the same process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from opslib.serving.keys import make_key
from opslib.serving.reload import StageError
from opslib.serving.service import Service
from opslib.serving.settings import load_settings
from tests.models import write_onnx
from tests.serving.conftest import Live, Place, write_card, write_carded

Make = Callable[[Live, Path], Path]


def truncated(live: Live, path: Path) -> Path:
    path.write_bytes(live.place.first.read_bytes()[:-40])
    return path


def empty(live: Live, path: Path) -> Path:
    path.touch()
    return path


def zeroed(live: Live, path: Path) -> Path:
    path.write_bytes(bytes(live.place.first.stat().st_size))
    return path


def flipped(live: Live, path: Path) -> Path:
    write_carded(path, live.place.images, seed=5)
    data = bytearray(path.read_bytes())
    data[data.index(b"weight") + 24] ^= 0x40
    path.write_bytes(data)
    return path


def without_sidecar(live: Live, path: Path) -> Path:
    write_onnx(path, classes=3, size=16, sidecar=True)
    path.with_name(f"{path.name}.data").unlink()
    return path


def other_classes(live: Live, path: Path) -> Path:
    return write_onnx(path, classes=4, size=16)


def other_class_names(live: Live, path: Path) -> Path:
    write_onnx(path, classes=3, size=16)
    write_card(path, live.place.images, names=("oval", "round", "capsule"))
    return path


def other_shape(live: Live, path: Path) -> Path:
    return write_onnx(path, classes=3, size=24)


def with_weights(path: Path, value: float) -> Path:
    write_onnx(path, classes=3, size=16)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        filled = np.full(list(tensor.dims), value, dtype=np.float32)
        tensor.CopyFrom(numpy_helper.from_array(filled, tensor.name))
    onnx.save(model, path)
    return path


def nan_weights(live: Live, path: Path) -> Path:
    return with_weights(path, float("nan"))


def constant(live: Live, path: Path) -> Path:
    return with_weights(path, 0.0)


def wrong_golden(live: Live, path: Path) -> Path:
    write_carded(path, live.place.images, seed=6)
    card = path.with_suffix(".json")
    write_onnx(path, classes=3, size=16, seed=7)
    from opslib.core.cards import ModelCard, list_files
    from opslib.core.models import find_model_files

    read = ModelCard.read(card)
    read.model_copy(update={"files": list_files(find_model_files(path))}).write(card)
    return path


def outside(live: Live, path: Path) -> Path:
    target = live.place.config_path.parent / "outside.onnx"
    return write_onnx(target, classes=3, size=16)


def link_out(live: Live, path: Path) -> Path:
    path.symlink_to(outside(live, path))
    return path


def folder(live: Live, path: Path) -> Path:
    path.mkdir()
    return path


def text(live: Live, path: Path) -> Path:
    path.write_text("this is no model\n" * 50)
    return path


def pipe(live: Live, path: Path) -> Path:
    os.mkfifo(path)
    return path


def missing(live: Live, path: Path) -> Path:
    return path


CASES = [
    (truncated, "read"),
    (empty, "read"),
    (zeroed, "read"),
    (flipped, "files"),
    (without_sidecar, "read"),
    (other_classes, "contract"),
    (other_class_names, "contract"),
    (other_shape, "contract"),
    (nan_weights, "outputs"),
    (constant, "outputs"),
    (wrong_golden, "golden"),
    (outside, "path"),
    (link_out, "path"),
    (folder, "path"),
    (text, "read"),
    (pipe, "path"),
    (missing, "path"),
]


@pytest.mark.parametrize(("make", "stage"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_a_bad_model_is_refused_by_its_stage(live: Live, make: Make, stage: str) -> None:
    before = live.version
    path = live.place.export / "model-bad.onnx"
    try:
        answer = live.reload(make(live, path))
    finally:
        for left in live.place.export.glob("model-bad*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    content = answer.json()
    assert answer.status_code == (400 if stage == "path" else 422)
    assert (content["code"], content["stage"]) == ("model_refused", stage), content
    assert content["hint"]
    assert live.version == before
    os.kill(live.service.pid, 0)
    assert live.predict(live.place.images[0]).status_code == 200


def test_a_loader_that_aborts_takes_only_the_trial_with_it(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import os\nos.abort()\n")
    monkeypatch.setenv("API_KEY", make_key())
    service = Service(load_settings(place.config))
    try:
        service.reloader.reload_now("model-a.onnx")
        monkeypatch.setattr("opslib.inference.trial.CHILD", child)
        with pytest.raises(StageError, match="SIGABRT") as caught:
            service.reloader.reload_now("model-b.onnx")
        assert caught.value.stage == "load"
        assert service.generations.require().model.path == place.first
    finally:
        service.close()


def test_a_model_that_wants_all_memory_takes_only_the_trial_with_it(live: Live) -> None:
    path = live.place.export / "model-huge.onnx"
    write_onnx(path, classes=3, size=16)
    model = onnx.load(path)
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], dtype=np.int64), "shape")
    model.graph.initializer.append(shape)
    grow = onnx.helper.make_node("ConstantOfShape", ["shape"], ["grown"])
    model.graph.node.append(grow)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("grown", onnx.TensorProto.FLOAT, [1 << 20, 1 << 20])
    )
    onnx.save(model, path)
    before = live.version
    answer = live.reload(path)
    path.unlink()
    assert answer.status_code == 422
    assert answer.json()["stage"] in ("load", "outputs")
    assert live.version == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_model_is_refused(live: Live) -> None:
    path = live.place.export / "model-private.onnx"
    write_onnx(path, classes=3, size=16)
    path.chmod(0)
    answer = live.reload(path).json()
    path.unlink()
    assert answer["stage"] == "read"
    assert "may not read it" in answer["hint"]


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/model.onnx",
        "file:///etc/passwd",
        "../../etc/passwd",
        "export/../../secret.onnx",
        "/etc/passwd",
        "model\x00.onnx",
        " ",
        "/" + "a" * 900 + ".onnx",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(live: Live, path: str) -> None:
    answer = live.reload(path)
    assert answer.status_code == 400
    assert answer.json()["stage"] == "path"


def test_a_sidecar_that_is_a_link_out_is_refused(live: Live) -> None:
    path = write_onnx(live.place.export / "model-linked.onnx", classes=3, size=16, sidecar=True)
    sidecar = path.with_name(f"{path.name}.data")
    elsewhere = live.place.config_path.parent / "weights.data"
    sidecar.rename(elsewhere)
    sidecar.symlink_to(elsewhere)
    answer = live.reload(path).json()
    path.unlink()
    sidecar.unlink()
    assert answer["stage"] == "read"
