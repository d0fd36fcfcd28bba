"""Valid float32 classifiers of three colours that the quantizers get wrong, or refuse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIZE, WIDE = 16, 8


def weight(name: str, values: object) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def node(kind: str, inputs: str, output: str, name: str = "", **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=name, **attributes)


# Its transpose is another, and no two neighbours of a column sum up to what a CPU without INT8
# instructions saturates at.
ROTATION = np.eye(3)[[1, 2, 0]]


def model(
    nodes: Sequence[NodeProto],
    weights: Sequence[TensorProto],
    *,
    opset: int = 18,
    ir: int = 10,
    batch: int | str = "N",
) -> ModelProto:
    """A classifier whose `nodes` go from `flat`, the mean colour `[N, 3]`, to `y`."""
    pool = [node("GlobalAveragePool", "input", "pooled"), node("Flatten", "pooled", "flat")]
    graph = helper.make_graph(
        [*pool, *nodes],
        "faulty",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        list(weights),
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def shared_weight() -> ModelProto:
    """One square weight used twice, as tied layers are."""
    return model(
        [
            node("Gemm", "flat w b", "first", "fc1", transB=1),
            node("Gemm", "first w b", "y", "fc2", transB=1),
        ],
        [weight("w", ROTATION), weight("b", [0.1, -0.1, 0.0])],
    )


def beta() -> ModelProto:
    """A bias that counts a quarter, and would decide alone if it counted whole."""
    return model(
        [node("Gemm", "flat w b", "y", "head", beta=0.02)],
        [weight("w", np.eye(3)), weight("b", [30, 0, 0])],
    )


def alpha() -> ModelProto:
    """Weights that count for a hundredth beside the bias."""
    return model(
        [node("Gemm", "flat w b", "y", "head", alpha=0.5, transB=1)],
        [weight("w", 2 * np.eye(3)), weight("b", [0.1, 0, 0])],
    )


def opset_10() -> ModelProto:
    """Layers whose inputs are never negative, in the opset where that saturates."""
    return model(
        [
            node("Relu", "flat", "positive"),
            node("Gemm", "positive w b", "hidden", "fc1"),
            node("Relu", "hidden", "kept"),
            node("Gemm", "kept v c", "y", "fc2"),
        ],
        [
            weight("w", np.eye(3, WIDE)),
            weight("b", np.full(WIDE, 0.1)),
            weight("v", np.eye(WIDE, 3)),
            weight("c", np.zeros(3)),
        ],
        opset=10,
        ir=5,
    )


def function() -> ModelProto:
    """The only layer inside a function, into which no quantizer looks."""
    made = model(
        [helper.make_node("Head", ["flat", "w"], ["y"], domain="own")], [weight("w", ROTATION)]
    )
    opsets = [helper.make_opsetid("", 18)]
    inside = [node("MatMul", "a b", "c", "fc")]
    made.functions.append(helper.make_function("own", "Head", ["a", "b"], ["c"], inside, opsets))
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def dead_relu() -> ModelProto:
    """A branch whose Relu is 0 for every image; without its Relu the branch decides."""
    return model(
        [
            node("Conv", "pooled k b", "hidden", "branch/Conv"),
            node("Relu", "hidden", "kept", "branch/Relu"),
            node("Sub", "pooled kept", "sum", "join"),
            node("Flatten", "sum", "features"),
            node("MatMul", "features v", "y", "head"),
        ],
        [
            weight("k", np.diag([1, 0, 0])[:, :, None, None]),
            weight("b", [-8, -0.01, -0.01]),
            weight("v", np.eye(3)),
        ],
    )


def optimized() -> ModelProto:
    """What an optimized session writes: operators of ONNX Runtime's own."""
    fused = helper.make_node("FusedMatMul", ["flat", "w"], ["h"], domain="com.microsoft")
    made = model(
        [fused, node("Gemm", "h w b", "y")], [weight("w", np.eye(3)), weight("b", [0] * 3)]
    )
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


def write(made: ModelProto, path: Path, *, sidecar: bool = False) -> Path:
    """Write a model, with its weights beside it if asked, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    location = f"{path.name}.data"
    onnx.save_model(made, path, save_as_external_data=sidecar, location=location, size_threshold=0)
    return path
