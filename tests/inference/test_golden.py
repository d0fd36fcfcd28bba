"""Golden images and the whole model check, stage by stage."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from opslib.core.cards import GoldenAnswer, ModelCard, list_files
from opslib.core.errors import ModelError
from opslib.core.files import sha256_file
from opslib.core.models import find_model_files
from opslib.inference.causes import ModelCheckError
from opslib.inference.checks import check_model
from opslib.inference.contract import Contract
from opslib.inference.golden import answer_golden, check_golden, load_golden
from opslib.inference.postprocess import softmax
from opslib.inference.preprocess import preprocess
from opslib.inference.trial import try_model
from tests.inference.test_contract import make_card
from tests.models import write_images, write_onnx

MODEL = Path("m.onnx")


def write_model_with_card(folder: Path) -> tuple[Path, ModelCard]:
    """Write a model, three golden images and the card that the model keeps to."""
    model = write_onnx(folder / "m.onnx")
    paths = write_images(folder / "golden", 3)
    trial = try_model(model, images=preprocess([str(p) for p in paths], 16))
    blank = tuple(
        GoldenAnswer(
            image=f"golden/{path.name}", sha256=sha256_file(path), class_id=0, probabilities=()
        )
        for path in paths
    )
    golden = answer_golden(blank, trial.probabilities())
    return model, make_card(files=list_files(find_model_files(model)), golden=golden)


def shift_bias(model: Path, offset: float) -> None:
    loaded = onnx.load(model)
    bias = next(one for one in loaded.graph.initializer if one.name == "bias")
    values = numpy_helper.to_array(bias) + offset * np.eye(3, dtype=np.float32)[0]
    bias.CopyFrom(numpy_helper.from_array(values.astype(np.float32), "bias"))
    onnx.save(loaded, model)


def test_a_model_that_keeps_its_card_passes_every_stage(tmp_path: Path) -> None:
    model, card = write_model_with_card(tmp_path)
    check = check_model(model, card, preprocess=preprocess)
    assert check.stages == ("files", "load", "contract", "outputs", "golden")
    assert check.golden is not None
    assert check.golden.count == 3
    assert check.golden.max_abs_diff < 1e-6


def test_without_a_card_the_load_and_the_outputs_are_checked(tmp_path: Path) -> None:
    check = check_model(write_onnx(tmp_path / "m.onnx"), None, preprocess=preprocess)
    assert check.stages == ("load", "contract", "outputs")


def test_changed_weights_fail_the_files_stage(tmp_path: Path) -> None:
    model, card = write_model_with_card(tmp_path)
    shift_bias(model, 5.0)
    with pytest.raises(ModelCheckError, match="differs from its card") as caught:
        check_model(model, card, preprocess=preprocess)
    assert caught.value.stage == "files"


def test_other_answers_fail_the_golden_stage(tmp_path: Path) -> None:
    model, card = write_model_with_card(tmp_path)
    shift_bias(model, 50.0)
    changed = card.model_copy(update={"files": list_files(find_model_files(model))})
    with pytest.raises(ModelCheckError, match=r"golden/\d\.jpg") as caught:
        check_model(model, changed, preprocess=preprocess)
    assert caught.value.stage == "golden"


def test_a_model_of_nans_fails_the_outputs_stage(tmp_path: Path) -> None:
    model, card = write_model_with_card(tmp_path)
    shift_bias(model, float("nan"))
    changed = card.model_copy(update={"files": list_files(find_model_files(model))})
    with pytest.raises(ModelCheckError, match="NaN") as caught:
        check_model(model, changed, preprocess=preprocess)
    assert caught.value.stage == "outputs"


@pytest.mark.parametrize("what", ["missing", "changed"])
def test_a_golden_image_must_be_there_as_it_was(tmp_path: Path, what: str) -> None:
    _, card = write_model_with_card(tmp_path)
    image = tmp_path / "golden/1.jpg"
    image.unlink() if what == "missing" else image.write_bytes(b"other")
    with pytest.raises(ModelCheckError, match=rf"1\.jpg: the golden image .* {what}") as caught:
        load_golden(card, tmp_path, preprocess, 16)
    assert caught.value.stage == "golden"


def golden_set(*rows: tuple[float, ...]) -> tuple[GoldenAnswer, ...]:
    return tuple(
        GoldenAnswer(image=f"{i}.jpg", sha256="0", class_id=int(np.argmax(row)), probabilities=row)
        for i, row in enumerate(rows)
    )


def said(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_a_near_tie_may_fall_the_other_way() -> None:
    golden = golden_set((0.401, 0.399, 0.2))
    result = check_golden(MODEL, said((0.399, 0.401, 0.2)), golden)
    assert result.max_abs_diff == pytest.approx(0.002, abs=1e-5)


def test_another_class_is_named_with_its_image() -> None:
    golden = golden_set((0.8, 0.1, 0.1), (0.1, 0.8, 0.1))
    with pytest.raises(ModelCheckError, match=r"1\.jpg is class 2, its card says 1"):
        check_golden(MODEL, said((0.8, 0.1, 0.1), (0.1, 0.1, 0.8)), golden)


def test_the_same_class_with_another_confidence_is_refused() -> None:
    golden = golden_set((0.8, 0.1, 0.1))
    with pytest.raises(ModelCheckError, match=r"differs from its card by 0\.100"):
        check_golden(MODEL, said((0.7, 0.2, 0.1)), golden)


def test_among_many_classes_another_class_is_refused_however_small_all_probabilities_are() -> None:
    wanted = np.full(200, 0.0049)
    wanted[7] = 1 - wanted.sum() + wanted[7]
    with pytest.raises(ModelCheckError, match=r"0\.jpg is class 8, its card says 7"):
        check_golden(MODEL, said(tuple(np.roll(wanted, 1))), golden_set(tuple(wanted)))


def test_a_card_of_which_the_answers_were_softmaxed_twice_is_told_as_such() -> None:
    once = np.array([[0.75, 0.15, 0.1]], np.float32)
    with pytest.raises(ModelCheckError, match="softmaxed them twice: make it anew"):
        check_golden(MODEL, once, golden_set(tuple(softmax(once)[0].tolist())))


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ModelCheckError, match="have 3 classes, the model answers 2"):
        check_golden(MODEL, said((0.5, 0.5)), golden_set((0.8, 0.1, 0.1)))


def test_answers_must_match_the_images_in_number() -> None:
    with pytest.raises(ModelError, match="1 golden images, 2 answers"):
        answer_golden(golden_set((1.0, 0.0)), np.zeros((2, 2), dtype=np.float32))


def test_a_model_of_any_size_is_tried_at_the_size_that_it_would_be_served_at(
    tmp_path: Path,
) -> None:
    model, sizes = write_onnx(tmp_path / "m.onnx", size="side"), list[int]()
    image = write_images(tmp_path, 1)[0]

    def prepare(paths: Sequence[str], size: int) -> NDArray[np.float32]:
        sizes.append(size)
        return preprocess(paths, size)

    trial = try_model(model, images=preprocess([str(image)], 24))
    blank = GoldenAnswer(image=image.name, sha256=sha256_file(image), class_id=0, probabilities=())
    golden = answer_golden((blank,), trial.probabilities())
    card = make_card(input_shape=("batch", 3, 24, 24), golden=golden)
    for served in (24, None):
        previous = Contract(3, (None, 3, served, served))
        check_model(model, card, preprocess=prepare, previous=previous)
    assert sizes == [24, 24]
    with pytest.raises(
        ModelCheckError, match=r"its card says 24 pixels.* 16 pixels a side"
    ) as caught:
        check_model(model, card, preprocess=prepare, previous=Contract(3, (None, 3, 16, 16)))
    assert caught.value.stage == "contract"
