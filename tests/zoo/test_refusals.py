"""What a door says of a model that it refuses: the cause, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from opslib.core.errors import ModelError
from opslib.ops.quantize import run as quantize_run
from tests.zoo.doors import Answer, command, make_place
from tests.zoo.table import MODELS


def measure(door: str, folder: Path, name: str) -> Answer:
    one = next(one for one in MODELS if one.name == name)
    place = make_place(folder, one)
    return command(door, "--model", place.model, "--config", place.config)


def test_a_quantization_of_which_nothing_came_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: object, **_named: object) -> tuple[str, ...]:
        raise ModelError("the quantizer has no word for it")

    monkeypatch.setattr(quantize_run, "quantize_variant", refuse)
    answer = measure("quantize", tmp_path, "plain")
    assert answer.code == 4, answer.said
    assert "the quantizer has no word for it" in answer.said
    assert "variants:" not in answer.said


@pytest.mark.parametrize("door", ["bench", "quantize"])
@pytest.mark.parametrize(
    ("name", "cause", "step"),
    [
        ("channels-last", "channels last", "--inputs-as-nchw"),
        ("another-size", "the images have 16 pixels a side", "preprocess.img_size"),
        ("burnt-batch", "its batch is fixed inside", "dynamic batch"),
        ("ir-14", "its IR version is 14", "lower it"),
        ("weights-missing", "is missing beside it", "copy the model"),
    ],
)
def test_the_doors_that_measure_say_what_the_service_says(
    tmp_path: Path, door: str, name: str, cause: str, step: str
) -> None:
    answer = measure(door, tmp_path, name)
    line = answer.said.splitlines()[-1]
    assert (answer.code, cause in line, step in line) == (2, True, True), answer.said
    assert "ONNXRuntimeError" not in line


def test_a_sweep_of_a_model_with_one_number_for_all_images_says_so(tmp_path: Path) -> None:
    answer = measure("sweep", tmp_path, "one-number")
    assert answer.code == 2, answer.said
    assert "answers 1 images with []; expected [N, classes]" in answer.said
