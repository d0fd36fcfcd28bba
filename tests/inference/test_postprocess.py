"""What a classifier's outputs mean is found out, and a softmax is never applied twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from opslib.core.errors import ModelError
from opslib.inference.causes import ModelCheckError
from opslib.inference.checks import check_model
from opslib.inference.contract import Contract, probe_images, read_num_classes
from opslib.inference.engine import EngineRequest
from opslib.inference.opening import open_engine
from opslib.inference.postprocess import (
    Postprocess,
    find_postprocess,
    judge_answers,
    softmax,
    to_probabilities,
)
from opslib.inference.preprocess import preprocess
from opslib.inference.signature import read_last_operator
from opslib.inference.trial import try_model

CLASSES, SIZE = 4, 16
EXP = [
    helper.make_node("Exp", ["logits"], ["exp"]),
    helper.make_node("ReduceSum", ["exp", "last"], ["sum"], keepdims=1),
    helper.make_node("Div", ["exp", "sum"], ["y"]),
]
MEAN_OF_TWO = [
    helper.make_node("Softmax", ["logits"], ["one"]),
    helper.make_node("Softmax", ["logits"], ["two"]),
    helper.make_node("Add", ["one", "two"], ["sum"]),
    helper.make_node("Mul", ["sum", "half"], ["y"]),
]
QUANTIZED = [
    helper.make_node("Softmax", ["logits"], ["p"], axis=1),
    helper.make_node("QuantizeLinear", ["p", "scale", "zero"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
]


def ending_in(*kinds: str) -> list[NodeProto]:
    """A chain of operators of one input from `logits` to `y`."""
    names = ["logits", *(f"step{i}" for i in range(len(kinds) - 1)), "y"]
    return [
        helper.make_node("Cast", [names[i]], [names[i + 1]], to=1)
        if kind == "Cast"
        else helper.make_node(kind, [names[i]], [names[i + 1]])
        for i, kind in enumerate(kinds)
    ]


def write(
    path: Path, end: Sequence[NodeProto], *, columns: int = CLASSES, function: bool = False
) -> Path:
    """Write a classifier whose logits go through `end`, inside a function of its own if asked."""
    rng = np.random.default_rng(0)
    body = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
    ]
    head = [helper.make_node("Head", ["logits"], ["y"], domain="own")] if function else list(end)
    constants: dict[str, NDArray[np.generic]] = {
        "w": rng.normal(size=(3, columns)).astype(np.float32),
        "b": rng.normal(size=columns).astype(np.float32),
        "last": np.array([1], np.int64),
        "half": np.array(0.5, np.float32),
        "scale": np.array(1 / 255, np.float32),
        "zero": np.array(0, np.uint8),
    }
    graph = helper.make_graph(
        [*body, *head],
        "headed",
        [helper.make_tensor_value_info("input", 1, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", 1, ["N", columns])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if function:
        made.functions.append(
            helper.make_function("own", "Head", ["logits"], ["y"], list(end), opsets[:1])
        )
    onnx.save(made, path)
    return path


def logits_of(path: Path, columns: int = CLASSES) -> NDArray[np.float32]:
    """What the network answers before its head."""
    plain = write(path.with_name("plain.onnx"), ending_in("Identity"), columns=columns)
    return try_model(plain, images=probe_images(SIZE)).answered()


@pytest.mark.parametrize(
    ("end", "function"),
    [
        (ending_in("Identity"), False),
        (ending_in("LogSoftmax"), False),
        (ending_in("Softmax"), False),
        (ending_in("Softmax", "Cast", "Identity"), False),
        (QUANTIZED, False),
        (EXP, False),
        (MEAN_OF_TWO, False),
        (ending_in("Softmax"), True),
    ],
    ids=[
        "logits",
        "log-softmax",
        "softmax",
        "then-cast",
        "8-bit",
        "by-hand",
        "ensemble",
        "in-a-function",
    ],
)
def test_however_the_softmax_is_written_it_is_applied_once(
    tmp_path: Path, end: list[NodeProto], function: bool
) -> None:
    path = write(tmp_path / "m.onnx", end, function=function)
    wanted = softmax(logits_of(path))
    trial = try_model(path, images=probe_images(SIZE))
    np.testing.assert_allclose(trial.probabilities(), wanted, atol=3e-3)
    with open_engine(EngineRequest("onnx", path)) as engine:
        got = to_probabilities(engine.run(probe_images(SIZE)), engine.facts.postprocess)
    np.testing.assert_allclose(got, wanted, atol=3e-3)


def test_a_function_that_is_only_called_softmax_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", ending_in("Identity"), function=True)
    made = onnx.load(path)
    made.functions[0].name = made.graph.node[-1].op_type = "Softmax"
    onnx.save(made, path)
    assert find_postprocess(path) is None
    assert try_model(path, images=probe_images(SIZE)).postprocess == "softmax"


def test_sigmoids_of_several_classes_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", ending_in("Sigmoid"))
    wanted = 1 / (1 + np.exp(-logits_of(path)))
    trial = try_model(path, images=probe_images(SIZE))
    assert trial.postprocess == "none"
    np.testing.assert_allclose(trial.probabilities(), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("end", "to_do"), [("Sigmoid", "none"), ("Identity", "sigmoid")], ids=["sigmoid", "logit"]
)
def test_one_column_is_the_probability_of_the_second_of_two_classes(
    tmp_path: Path, end: str, to_do: Postprocess
) -> None:
    path = write(tmp_path / "m.onnx", ending_in(end), columns=1)
    second = 1 / (1 + np.exp(-logits_of(path, 1)))
    check = check_model(path, None, preprocess=preprocess, img_size=SIZE)
    assert (check.trial.postprocess, check.trial.num_classes) == (to_do, 2)
    assert read_num_classes(path) == 2
    wanted = np.concatenate([1 - second, second], axis=-1)
    np.testing.assert_allclose(check.trial.probabilities(), wanted, atol=1e-6)


def test_a_column_stays_a_logit_in_eight_bits(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", ending_in("Identity"), columns=1)
    quantize_dynamic(str(path), str(tmp_path / "q.onnx"), weight_type=QuantType.QInt8)
    assert find_postprocess(tmp_path / "q.onnx") == "sigmoid"


def test_a_column_that_a_softmax_makes_one_of_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", ending_in("Softmax"), columns=1)
    with pytest.raises(ModelCheckError, match="answers the same"):
        check_model(path, None, preprocess=preprocess, img_size=SIZE)


def test_who_softmaxes_the_answers_itself_gets_no_probabilities_in_place_of_logits(
    tmp_path: Path,
) -> None:
    live = try_model(write(tmp_path / "a.onnx", ending_in("Identity")), images=probe_images(SIZE))
    path = write(tmp_path / "b.onnx", ending_in("Softmax"))
    with pytest.raises(ModelCheckError, match="it answers probabilities, expected logits"):
        check_model(
            path, None, preprocess=preprocess, img_size=SIZE, previous=Contract.from_trial(live)
        )


def test_where_the_graph_does_not_say_it_the_answers_do(tmp_path: Path) -> None:
    assert find_postprocess(write(tmp_path / "m.onnx", EXP)) is None
    assert find_postprocess(tmp_path / "none.onnx") is None
    assert judge_answers(np.array([[0.2, 0.8], [0.5, 0.5]], np.float32)) == "none"
    assert judge_answers(np.array([[0.2, 0.8], [0.5, 0.9]], np.float32)) == "softmax"
    assert judge_answers(np.array([[-0.2, 1.2]], np.float32)) == "softmax"


def test_a_node_that_is_damaged_is_told_as_a_damaged_model(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", ending_in("Softmax"))
    # The length of the last operator's name is made longer than the node.
    path.write_bytes(path.read_bytes().replace(b"\x07Softmax", b"\x7fSoftmax"))
    with path.open("rb") as file, pytest.raises(ModelError, match="or damaged"):
        read_last_operator(file, path.name)
    assert find_postprocess(path) is None


def test_softmax_and_sigmoid_survive_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0]], np.float32)), [[1, 0]])
    large = to_probabilities(np.array([[-1e4], [1e4]], np.float32), "sigmoid")
    np.testing.assert_allclose(large, [[1, 0], [0, 1]])
