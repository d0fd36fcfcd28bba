"""A model that is no classifier keeps to its own golden outputs: of any number, rank and type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from opslib.core.cards import GoldenOutputs, ModelCard, card_path, list_files, read_card
from opslib.core.files import sha256_file
from opslib.core.models import find_model_files
from opslib.inference.causes import ModelCheckError
from opslib.inference.checks import check_model
from opslib.inference.golden import MAX_OUTPUT_DIFF, summarise_outputs
from opslib.inference.preprocess import preprocess
from opslib.inference.trial import try_model
from tests.serving.conftest import SIZE, write_colours
from tests.two_stage import write_detector


def write_many_outputs(path: Path, *, scale: float = 1.0, batch: int | str = "N") -> Path:
    """Write a model with a map, boxes in pixels, labels, a flag and a scalar as outputs."""
    weights = [
        numpy_helper.from_array(np.array(640 * scale, np.float32), "pixels"),
        numpy_helper.from_array(np.array(0.0, np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Mul", ["input", "pixels"], ["map"]),
        helper.make_node("Mul", ["pooled", "pixels"], ["boxes"]),
        helper.make_node("ArgMax", ["pooled"], ["labels"], axis=1),
        helper.make_node("Greater", ["pooled", "zero"], ["flags"]),
        helper.make_node("ReduceMean", ["input"], ["level"], keepdims=0),
    ]
    outputs = {
        "map": (TensorProto.FLOAT, [batch, 3, SIZE, SIZE]),
        "boxes": (TensorProto.FLOAT, [batch, 3, 1, 1]),
        "labels": (TensorProto.INT64, [batch, 1, 1, 1]),
        "flags": (TensorProto.BOOL, [batch, 3, 1, 1]),
        "level": (TensorProto.FLOAT, []),
    }
    graph = helper.make_graph(
        nodes,
        "many",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, *one) for name, one in outputs.items()],
        weights,
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def write_outputs_card(model: Path, images: list[Path]) -> ModelCard:
    """Write a card with the golden outputs that the model gives now."""
    inputs = preprocess([str(image) for image in images], SIZE)
    answers = try_model(model, images=inputs, every_output=True).every_output
    golden = tuple(
        GoldenOutputs(
            image=image.relative_to(model.parent).as_posix(),
            sha256=sha256_file(image),
            outputs=summarise_outputs(answer),
        )
        for image, answer in zip(images, answers, strict=True)
    )
    files = list_files(find_model_files(model))
    card = ModelCard(onnx_path=str(model), files=files, golden_outputs=golden)
    card.write(card_path(model))
    return card


def put_in_place_of(model: Path, other: Path) -> None:
    """Give a model other bytes, and its card their digests."""
    model.write_bytes(other.read_bytes())
    card = read_card(model)
    assert card is not None
    changed = card.model_copy(update={"files": list_files(find_model_files(model))})
    changed.write(card_path(model))


def check(model: Path) -> tuple[str, ...]:
    """The stages that the model passes as one of which no more is asked."""
    return check_model(model, read_card(model), preprocess=preprocess, contract="any").stages


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return write_colours(tmp_path / "golden", 2)


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_outputs_of_any_number_rank_and_type_are_compared(
    tmp_path: Path, images: list[Path], batch: int | str
) -> None:
    model = write_many_outputs(tmp_path / "m.onnx", batch=batch)
    card = write_outputs_card(model, images)
    names = [one.name for one in card.golden_outputs[0].outputs]
    assert names == ["map", "boxes", "labels", "flags", "level"]
    assert [len(one.shape) for one in card.golden_outputs[0].outputs] == [4, 4, 4, 4, 0]
    assert check(model) == ("files", "load", "outputs", "golden")
    assert card_path(model).stat().st_size < 40_000


def test_one_without_golden_images_only_has_to_load(tmp_path: Path) -> None:
    model = write_detector(tmp_path / "d.onnx")
    assert check(model) == ("load",)
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(ModelCheckError) as caught:
        check(model)
    assert caught.value.stage == "load"


@pytest.mark.parametrize(
    ("scale", "fits"), [(1 + MAX_OUTPUT_DIFF / 2, True), (1 + MAX_OUTPUT_DIFF * 3, False)]
)
def test_what_differs_by_more_than_the_tolerance_is_refused_by_image_and_output(
    tmp_path: Path, images: list[Path], scale: float, *, fits: bool
) -> None:
    model = write_many_outputs(tmp_path / "m.onnx")
    write_outputs_card(model, images)
    put_in_place_of(model, write_many_outputs(tmp_path / "other.onnx", scale=scale))
    if fits:
        assert check(model)[-1] == "golden"
        return
    with pytest.raises(ModelCheckError, match=r"golden/0.jpg: output 'map': .* its card says"):
        check(model)


def test_another_detector_of_the_same_shape_is_refused(tmp_path: Path, images: list[Path]) -> None:
    model = write_detector(tmp_path / "d.onnx", seed=1)
    write_outputs_card(model, images)
    put_in_place_of(model, write_detector(tmp_path / "other.onnx", seed=2))
    with pytest.raises(ModelCheckError) as caught:
        check(model)
    assert caught.value.stage == "golden"


def test_one_of_another_shape_says_both(tmp_path: Path, images: list[Path]) -> None:
    model = write_detector(tmp_path / "d.onnx")
    write_outputs_card(model, images)
    put_in_place_of(model, write_detector(tmp_path / "other.onnx", boxes=12))
    with pytest.raises(ModelCheckError, match=r"float32 \[1x12x6\], its card says float32 \[1x10"):
        check(model)


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path, images: list[Path]) -> None:
    model = write_many_outputs(tmp_path / "m.onnx")
    write_outputs_card(model, images)
    put_in_place_of(model, write_many_outputs(tmp_path / "other.onnx", scale=float("nan")))
    with pytest.raises(ModelCheckError, match="output 'map' holds a NaN or an infinity") as caught:
        check(model)
    assert caught.value.stage == "outputs"


def test_a_model_whose_outputs_are_no_numbers_is_refused(
    tmp_path: Path, images: list[Path]
) -> None:
    model, labels = write_many_outputs(tmp_path / "m.onnx"), tmp_path / "labels.onnx"
    write_outputs_card(model, images)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["input"], ["label"], to=TensorProto.STRING)],
        "labels",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("label", TensorProto.STRING, ["N", 3, 16, 16])],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=10), labels)
    put_in_place_of(model, labels)
    with pytest.raises(ModelCheckError, match="none of its outputs holds numbers"):
        check(model)


def test_a_golden_image_that_changed_is_named(tmp_path: Path, images: list[Path]) -> None:
    model = write_detector(tmp_path / "d.onnx")
    write_outputs_card(model, images)
    images[1].write_bytes(images[0].read_bytes())
    with pytest.raises(ModelCheckError, match=r"1.jpg: the golden image has changed"):
        check(model)
