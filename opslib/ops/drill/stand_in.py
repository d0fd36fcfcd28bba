"""Small classifiers made on the spot, with the input and number of classes of a real one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opslib.core.errors import ModelError

OPSET = 18
IR_VERSION = 10


@dataclass(frozen=True)
class ClassifierShape:
    """What a classifier takes and answers: element type (onnx's number), axes, classes.

    A free axis is None.
    """

    dtype: int
    height: int | None
    width: int | None
    classes: int


def read_classifier_shape(path: Path) -> ClassifierShape:
    """Return the signature of the ONNX classifier at `path`, without loading its weights.

    Raises:
        ModelError: it has no image input or no fixed number of classes.
    """
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
        first = graph.input[0].type.tensor_type
        axes = [int(axis.dim_value) or None for axis in first.shape.dim]
        classes = int(graph.output[0].type.tensor_type.shape.dim[-1].dim_value)
    except Exception as error:  # protobuf's and onnx's own classes share no base but Exception
        raise ModelError(f"{path}: its signature cannot be read: {error}") from error
    if len(axes) != 4 or classes < 2:
        raise ModelError(f"{path}: expected an input [N, 3, H, W] and a fixed number of classes")
    return ClassifierShape(int(first.elem_type), axes[2], axes[3], classes)


def write_stand_in(
    path: Path, signature: ClassifierShape, *, fill: float | None = None, sidecar: bool = False
) -> Path:
    """Write a linear classifier of this signature and return its path.

    Args:
        fill: the value of every weight; random ones by default.
        sidecar: keep the weights in a file beside it.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    kind = helper.tensor_dtype_to_np_dtype(signature.dtype)

    def make(name: str, *shape: int) -> Any:
        values = rng.normal(size=shape) if fill is None else np.full(shape, fill)
        return numpy_helper.from_array(values.astype(kind), name)

    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
    ]
    image = [None, 3, signature.height, signature.width]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("input", signature.dtype, image)],
        [helper.make_tensor_value_info("logits", signature.dtype, [None, signature.classes])],
        [make("weight", 3, signature.classes), make("bias", signature.classes)],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    onnx.save_model(
        model, path, save_as_external_data=sidecar, location=f"{path.name}.data", size_threshold=0
    )
    return path
