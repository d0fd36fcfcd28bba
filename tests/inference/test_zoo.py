"""Each model of the zoo passes, or is refused by the right stage, in few words that name the cause
and with a hint that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from opslib.inference.causes import LIMIT, ModelCheckError, find_hint, shorten_error
from opslib.inference.checks import check_model
from opslib.inference.preprocess import preprocess
from tests.inference.zoo import SIZE, ZooModel
from tests.zoo.table import MODELS
from tests.zoo.variants import prepare

MOST = 200


@pytest.mark.parametrize("one", MODELS, ids=lambda one: one.name)
def test_it_passes_or_is_refused_in_few_words(tmp_path: Path, one: ZooModel) -> None:
    path = tmp_path / one.file
    one.write(path)
    if one.stage is None:
        assert check_model(path, None, preprocess=preprocess, img_size=SIZE).stages
        assert prepare(path) is None
        return
    with pytest.raises(ModelCheckError) as caught:
        check_model(path, None, preprocess=preprocess, img_size=SIZE)
    said = str(caught.value).removeprefix(f"{path}: ")
    hint = find_hint(caught.value.stage, str(caught.value))
    assert (caught.value.stage, one.says in said, one.hint in hint) == (one.stage, True, True), (
        f"{caught.value.stage}: {said} | {hint}"
    )
    assert len(f"{said}; {hint}") <= MOST
    assert not any(
        noise in said for noise in ("onnxruntime::", "/onnxruntime_src", "ONNXRuntimeError")
    )


def test_of_a_long_text_the_end_is_kept() -> None:
    said = shorten_error(f"[ONNXRuntimeError] : 1 : FAIL : {'much ' * 100} the reason is here")
    assert said.endswith("the reason is here")
    assert len(said) <= LIMIT + 1


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{}:Head(-1) is not a registered function/op", "standard operators"),
        ("own:{}(-1) is not a registered function/op", "standard operators"),
        ("No Op registered for {} with domain_version of 18", "standard operators"),
        ("Could not find an implementation for {}(1)", "float32"),
        (
            "cannot be reshaped to the requested shape. "
            "Input shape:{{{0}}}, requested shape:{{2,{0}}}",
            "dynamic batch",
        ),
    ],
)
def test_a_known_cause_with_long_names_stays_short_and_keeps_its_hint(text: str, hint: str) -> None:
    said = f"ONNX Runtime refuses it: {shorten_error(text.format('long' * 100))}"
    found = find_hint("load", said)
    assert hint in found
    assert len(f"{said}; {found}") <= MOST


@pytest.mark.parametrize("stage", ["load", "outputs"])
def test_the_longest_words_of_onnx_runtime_leave_room_for_what_to_do(stage: str) -> None:
    said = shorten_error("much " * 100)
    assert len(f"ONNX Runtime refuses it: {said}; {find_hint(stage, said)}") <= MOST
