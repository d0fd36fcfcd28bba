"""A switch goes by evidence: what cannot be read refuses it, what was never there is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from opslib.core.cards import card_path
from opslib.serving.client import ServiceClient
from opslib.serving.reload import StageError
from opslib.serving.service import Service
from opslib.serving.settings import load_settings
from opslib.serving.start import load_first_model
from opslib.serving.swap import switch_hosts
from tests.damage import UNREADABLE, clear
from tests.serving.conftest import Live, Place


@pytest.fixture
def model(live: Live) -> Iterator[Path]:
    """A copy of the first model with its card, gone afterwards."""
    path = live.place.export / "model-copy.onnx"
    shutil.copyfile(live.place.first, path)
    text = card_path(live.place.first).read_text().replace("model-a.onnx", path.name)
    card_path(path).write_text(text)
    yield path
    live.reload(live.place.first)
    path.unlink()
    clear(card_path(path))


def flip_signs(path: Path) -> None:
    """Change the sign of some weights, as a damaged disk might."""
    model = onnx.load(path)
    weights = next(one for one in model.graph.initializer if one.name == "weight")
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] *= -1
    weights.CopyFrom(numpy_helper.from_array(values, "weight"))
    onnx.save_model(model, path)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_damaged_card_refuses_a_switch_and_says_what_to_do(
    live: Live, model: Path, kind: str
) -> None:
    before = live.version
    UNREADABLE[kind](card_path(model))
    answer = live.reload(model)
    assert answer.status_code == 422
    assert answer.json()["stage"] == "read"
    assert "model-copy.json: evidence that is there" in answer.json()["detail"]
    assert "restore the card" in answer.json()["hint"]
    assert live.version == before


def test_weights_that_changed_are_refused_with_an_intact_card_and_with_an_empty_one(
    live: Live, model: Path
) -> None:
    flip_signs(model)
    assert live.reload(model).json()["stage"] == "files"
    card_path(model).write_bytes(b"")
    assert live.reload(model).json()["stage"] == "read"


def test_a_golden_image_that_is_missing_refuses_a_switch(live: Live, model: Path) -> None:
    text = card_path(model).read_text()
    card_path(model).write_text(text.replace("golden/0.jpg", "golden/gone.jpg"))
    refused = live.reload(model).json()
    assert refused["stage"] == "golden"
    assert "gone.jpg: the golden image is missing" in refused["detail"]


def test_a_switch_without_evidence_says_so_in_its_answer_its_line_and_the_log(
    live: Live, model: Path
) -> None:
    assert live.reload(model).json()["warning"] is None
    live.reload(live.place.first)
    card_path(model).unlink()
    bare = model.with_name("model-bare.onnx")
    shutil.copyfile(live.place.second.with_name("model-a.onnx"), bare)
    flip_signs(bare)
    said: list[str] = []
    client = ServiceClient(live.service.url, live.service.key, live.place.config.client)
    switch_hosts([client], str(bare), said.append)
    assert "after  model-bare" in said[1]
    assert "; warning: no card: neither its bytes nor its answers could be compared" in said[1]
    assert live.reload(bare).json()["warning"].startswith("no card")
    assert "switched to model-bare; no card" in live.place.read_log("api.err")
    live.reload(live.place.first)
    bare.unlink()


def test_a_start_names_the_damaged_card_and_what_to_do(
    service: Service,
    place: Place,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card_path(place.second).write_bytes(b"")
    with pytest.raises(StageError, match=r"model-b.json: evidence that is there") as refused:
        service.reloader.start_with(place.second)
    assert "move it away" in refused.value.hint
    load_first_model(service)
    assert "model-b.json: evidence that is there" in caplog.text
    monkeypatch.setenv("MODEL_PATH", str(place.second))
    pinned = Service(load_settings(place.config))
    with pytest.raises(Exception, match=r"MODEL_PATH: stage read: .*\(hint: restore the card"):
        load_first_model(pinned)
    pinned.close()
