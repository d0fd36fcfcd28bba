"""Signature and operators are read from a model's bytes, as onnx sees them, whatever its size."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from opslib.core.errors import ModelError
from opslib.inference.contract import read_input_size
from opslib.inference.engine import EngineRequest
from opslib.inference.onnx_engine import OnnxEngine
from opslib.inference.signature import read_operators, read_signature
from tests.inference.fake_session import FakeSession
from tests.models import write_onnx


def as_onnx_sees(path: Path) -> list[tuple[str, list[object]]]:
    graph = onnx.load(path, load_external_data=False).graph
    return [
        (
            value.name,
            [
                dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None)
                for dim in value.type.tensor_type.shape.dim
            ],
        )
        for value in (*graph.input, *graph.output)
    ]


@pytest.mark.parametrize("sidecar", [False, True])
@pytest.mark.parametrize(("size", "batch"), [(16, "N"), ("width", 1), (224, 8)])
def test_inputs_and_outputs_are_those_that_onnx_sees(
    tmp_path: Path, size: int | str, batch: int | str, sidecar: bool
) -> None:
    path = write_onnx(tmp_path / "m.onnx", size=size, batch=batch, sidecar=sidecar)
    with path.open("rb") as file:
        found = read_signature(file, path.name)
    assert found.opset == 18
    seen = [(one.name, list(one.shape)) for one in (*found.inputs, *found.outputs)]
    assert seen == as_onnx_sees(path)
    assert read_input_size(path) == (size if isinstance(size, int) else None)


def test_element_types_and_weights_among_the_inputs(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", dtype=TensorProto.FLOAT16)
    model = onnx.load(path)
    for weight in model.graph.initializer:
        extra = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        model.graph.input.insert(0, extra)
    onnx.save(model, path)
    with path.open("rb") as file:
        found = read_signature(file, path.name)
    assert [(one.name, one.dtype) for one in found.inputs] == [("input", "float16")]


@pytest.mark.parametrize("data", [b"", b"junk", b"\x3a\xff\xff\xff\xff\x7f"])
def test_what_is_no_model_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(ModelError, match=r"m\.onnx: not an ONNX model"):
        read_signature(file, path.name)
    assert read_input_size(path) is None


def test_operators_are_those_that_onnx_sees_also_in_branches_and_functions(tmp_path: Path) -> None:
    """A branch within a branch, and a function that hides how it quantizes."""
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["flat"], ["z"])], "branch", [], [out])
    deep = helper.make_graph(
        [helper.make_node("If", ["on"], ["z"], then_branch=branch, else_branch=branch)],
        "deep",
        [],
        [out],
    )
    path = write_onnx(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.node.append(
        helper.make_node("If", ["on"], ["more"], then_branch=branch, else_branch=deep)
    )
    opsets = [helper.make_opsetid("", 18)]
    hidden = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "p"])
    model.functions.append(helper.make_function("own", "Hide", ["x"], ["q"], [hidden], opsets))
    onnx.save(model, path)
    with path.open("rb") as file:
        assert read_operators(file, path.name) == {
            "DynamicQuantizeLinear",
            "Flatten",
            "Gemm",
            "GlobalAveragePool",
            "If",
            "Relu",
        }


@pytest.mark.parametrize(
    ("operator", "scales"),
    [
        ("DynamicQuantizeLinear", True),
        ("DynamicQuantizeMatMul", True),
        ("DynamicQuantizeLSTM", True),
        ("MatMulInteger", True),
        ("MatMulIntegerToFloat", True),
        ("ConvInteger", True),
        ("QLinearConv", False),
        ("QuantizeLinear", False),
        ("MatMul", False),
    ],
)
def test_an_engine_says_whether_its_model_scales_an_image_by_those_beside_it(
    tmp_path: Path, operator: str, scales: bool
) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    model = onnx.load(path)
    nodes = [helper.make_node(operator, ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "Unused", ["x"], ["y"], nodes, opsets))
    onnx.save(model, path)
    session = FakeSession(providers=["CPUExecutionProvider"])
    engine = OnnxEngine(EngineRequest("onnx", path), session=session)
    assert engine.facts.scales_by_batch is scales
