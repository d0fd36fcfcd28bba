"""The bytes in use are the service's own: nobody who changes a model's files reaches them."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from opslib.core.errors import StorageError
from opslib.core.files import hide_name, is_temporary
from opslib.core.models import find_model_files
from opslib.serving import own_copy
from opslib.serving.logs import FEW
from opslib.serving.own_copy import copy_model
from opslib.serving.reload import StageError
from opslib.serving.service import Service
from tests.models import write_onnx
from tests.serving.conftest import SIZE, Live, Place, write_carded


def weights_of(model: Path) -> Path:
    return model.with_name(f"{model.name}.data")


def empty(weights: Path) -> None:
    weights.open("wb").close()


def overwrite(weights: Path) -> None:
    """Write NaN over every weight; the size stays."""
    with weights.open("r+b") as file:
        file.write(np.full(weights.stat().st_size // 4, np.nan, "float32").tobytes())


def ask_all(live: Live) -> list[tuple[int, float]]:
    answers = [live.predict(image).json() for image in live.place.images]
    return [(one["class_id"], one["confidence"]) for one in answers]


@pytest.fixture
def mapped(live: Live) -> Iterator[Path]:
    """A model with its weights beside it, in service; another one is afterwards."""
    model = write_carded(live.place.export / "mapped.onnx", live.place.images, seed=5, sidecar=True)
    assert live.reload(model).status_code == 200
    yield model
    live.reload(live.place.first)


@pytest.mark.parametrize("change", [empty, overwrite])
def test_weights_changed_in_place_leave_a_served_model_as_it_was(
    live: Live, mapped: Path, change: object
) -> None:
    before, digest = ask_all(live), live.version["model_sha256"]
    assert callable(change)
    change(weights_of(mapped))
    assert ask_all(live) == before
    assert live.version["model_sha256"] == digest


def test_a_changed_resident_model_is_loaded_anew_and_refused_if_it_is_broken(
    live: Live, mapped: Path
) -> None:
    old = live.version["model_sha256"]
    write_carded(mapped, live.place.images, seed=6)
    answer = live.reload(mapped).json()
    assert answer["resident"] is False
    assert answer["model_sha256"] == find_model_files(mapped).digest() != old
    mapped.write_bytes(mapped.read_bytes()[:-40])
    assert live.reload(mapped).status_code == 422


def test_nothing_of_a_copy_is_left_once_a_model_is_loaded_or_refused(
    live: Live, mapped: Path
) -> None:
    overwrite(weights_of(mapped))
    refused = live.reload(mapped).json()
    assert refused["stage"] == "files"
    assert str(weights_of(mapped).name) in refused["detail"]
    assert "own-copy" not in str(refused)
    assert not [one for one in live.place.config.exp_dir.iterdir() if is_temporary(one.name)]


def write_fragile(path: Path) -> Path:
    """Write a model that answers NaN to a dark image alone."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Add", ["flat", "shift"], ["shifted"]),
        helper.make_node("Sqrt", ["shifted"], ["logits"]),
    ]
    shift = numpy_helper.from_array(np.full(3, 1.5, "float32"), "shift")
    shape = ["N", 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "fragile",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [shift],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(model, path)
    return path


def test_an_answer_that_is_not_a_number_is_500_and_logged_sparingly(
    live: Live, tmp_path: Path
) -> None:
    assert live.reload(write_fragile(live.place.export / "fragile.onnx")).status_code == 200
    dark, light = tmp_path / "dark.png", tmp_path / "light.png"
    Image.new("RGB", (20, 20), (0, 0, 0)).save(dark)
    Image.new("RGB", (20, 20), (255, 255, 255)).save(light)
    for _ in range(10):
        answer = live.predict(dark, "a.png", "image/png")
        assert answer.status_code == 500
        assert answer.json()["code"] == "not_a_number"
    assert live.predict(light, "a.png", "image/png").status_code == 200
    both = [("images", (path.name, path.read_bytes(), "image/png")) for path in (light, dark)]
    assert "1 of 2 images" in live.client.post("/batch", files=both).json()["detail"]
    live.reload(live.place.first)
    assert live.place.read_log("api.err").count("with a NaN") == FEW


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no room left anywhere."""
    monkeypatch.setattr(own_copy, "_SPARE_BYTES", 1 << 60)


def test_a_full_disk_at_a_start_has_the_weights_read_into_memory(
    service: Service,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill_disk(monkeypatch)
    model = service.reloader.start_with(place.second).generation.model
    assert "own copy of the model needs" in caplog.text
    assert "read into memory instead" in caplog.text
    assert str(weights_of(place.second)) not in Path("/proc/self/maps").read_text()
    batch = np.ones((1, 3, SIZE, SIZE), np.float32)
    before = model.run(batch)
    empty(weights_of(place.second))
    assert np.array_equal(model.run(batch), before)
    assert not model.is_unchanged()


def test_a_full_disk_at_a_reload_refuses_it_and_says_what_to_do(
    service: Service, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.reloader.start_with(place.first)
    fill_disk(monkeypatch)
    with pytest.raises(StageError, match=r"own copy of the model needs .* are free") as refused:
        service.reloader.reload_now(str(place.second))
    assert refused.value.stage == "read"
    assert "free room" in refused.value.hint
    assert service.generations.require().model.path == place.first
    assert service.reloader.reload_now(str(place.first)).resident


def test_a_disk_that_fills_up_while_a_copy_is_made_leaves_nothing_behind(tmp_path: Path) -> None:
    files = find_model_files(write_onnx(tmp_path / "m.onnx", classes=9000, sidecar=True))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with (
            pytest.raises(StorageError, match="own copy of the model"),
            copy_model(files, tmp_path),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


def test_the_copy_of_a_killed_service_is_removed_and_that_of_a_living_one_stays(
    tmp_path: Path,
) -> None:
    files = find_model_files(write_onnx(tmp_path / "m.onnx", sidecar=True))
    killed = hide_name(tmp_path / "own-copy")
    killed.mkdir()
    (killed / "m.onnx").write_bytes(b"half")
    foreign = tmp_path / ".own-copy.tmp"
    foreign.mkdir()
    with copy_model(files, tmp_path) as living, copy_model(files, tmp_path) as second:
        assert not killed.exists()
        assert is_temporary(living.path.parent.name)
        assert living.digest() == second.digest() == files.digest()
        assert living.path.stat().st_mode & 0o777 == 0o600
    assert foreign.exists()
    assert not living.path.parent.exists()
