"""The contract: what a model takes and answers, and that its answers mean something."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from opslib.core.cards import ModelCard
from opslib.inference.causes import ModelCheckError
from opslib.inference.contract import (
    Contract,
    check_classes_kept,
    check_contract,
    check_outputs,
    probe_images,
    read_input_size,
)
from opslib.inference.trial import try_model
from tests.models import write_onnx

MODEL = Path("m.onnx")


def make_card(**changes: object) -> ModelCard:
    values: dict[str, object] = {
        "backbone": "tiny",
        "num_classes": 3,
        "onnx_path": "export/m.onnx",
        "exported_at_utc": "2026-01-01T00:00:00+00:00",
        "input_shape": ("batch", 3, 16, 16),
        "class_names": ("a", "b", "c"),
    }
    return ModelCard.model_validate(values | changes)


def test_a_model_that_keeps_its_cards_contract_passes(tmp_path: Path) -> None:
    trial = try_model(write_onnx(tmp_path / "m.onnx"), images=probe_images(16))
    check_contract(MODEL, trial, Contract.from_card(make_card()))
    check_outputs(MODEL, trial.answered(), differing=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 26}, "it has 3 classes, expected 26"),
        ({"input_shape": ("batch", 3, 32, 32)}, "it takes 3x16x16, expected 3x32x32"),
        ({"input_shape": ("batch", 1, 16, 16)}, "it takes 3x16x16, expected 1x16x16"),
    ],
)
def test_what_differs_from_the_card_is_said(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    trial = try_model(write_onnx(tmp_path / "m.onnx"))
    with pytest.raises(ModelCheckError, match=message) as caught:
        check_contract(MODEL, trial, Contract.from_card(make_card(**changes)))
    assert caught.value.stage == "contract"


def test_the_previous_models_element_type_is_kept(tmp_path: Path) -> None:
    before = try_model(write_onnx(tmp_path / "a.onnx"))
    after = try_model(write_onnx(tmp_path / "b.onnx", dtype=TensorProto.FLOAT16))
    with pytest.raises(ModelCheckError, match="it takes float16, expected float32"):
        check_contract(MODEL, after, Contract.from_trial(before))
    check_contract(MODEL, before, Contract.from_trial(before))


def test_a_free_axis_of_the_previous_model_allows_any_size(tmp_path: Path) -> None:
    before = try_model(write_onnx(tmp_path / "a.onnx", size="S"))
    after = try_model(write_onnx(tmp_path / "b.onnx", size=32))
    check_contract(MODEL, after, Contract.from_trial(before))


def test_answers_that_are_not_finite_are_refused() -> None:
    answers = np.ones((5, 3), dtype=np.float32)
    answers[2, 1] = np.nan
    with pytest.raises(ModelCheckError, match="1 of 5 answers hold a NaN") as caught:
        check_outputs(MODEL, answers, differing=4)
    assert caught.value.stage == "outputs"


def test_the_same_answer_to_differing_images_is_refused() -> None:
    same = np.tile(np.array([[0.1, 0.7, 0.2]], dtype=np.float32), (4, 1))
    with pytest.raises(ModelCheckError, match="answers the same to 4 differing images"):
        check_outputs(MODEL, same, differing=4)


def test_class_names_must_stay_in_their_order() -> None:
    previous = Contract(3, (None, 3, 16, 16), ("a", "b", "c"))
    check_classes_kept(MODEL, make_card(), previous)
    check_classes_kept(MODEL, None, previous)
    with pytest.raises(ModelCheckError, match="class 1 is 'c', expected 'b'"):
        check_classes_kept(MODEL, make_card(class_names=("a", "c", "b")), previous)
    with pytest.raises(ModelCheckError, match="2 class names, expected 3"):
        check_classes_kept(MODEL, make_card(class_names=("a", "b")), previous)


def test_probe_images_differ_and_are_finite() -> None:
    probes = probe_images(16)
    assert probes.shape == (4, 3, 16, 16)
    assert np.isfinite(probes).all()
    assert len({image.tobytes() for image in probes}) == 4


def test_the_input_size_is_read_without_loading_weights(tmp_path: Path) -> None:
    assert read_input_size(write_onnx(tmp_path / "a.onnx", size=48, sidecar=True)) == 48
    assert read_input_size(write_onnx(tmp_path / "b.onnx", size="S")) is None
    (tmp_path / "c.onnx").write_bytes(b"no model")
    assert read_input_size(tmp_path / "c.onnx") is None
