"""Small valid models as people really have them, and what becomes of each when it is inspected and
tried as a classifier of three classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIZE, CLASSES = 16, 3
Axes = Sequence[int | str | None]


@dataclass(frozen=True)
class ZooModel:
    """One model: how it is written, the stage that refuses it (None: it passes), the words that
    name the cause, and those that say what to do; the name that its file has."""

    name: str
    write: Callable[[Path], object]
    stage: str | None = None
    says: str = ""
    hint: str = ""
    file: str = "model.onnx"


def weight(*shape: int, seed: int = 0, kind: type = np.float32) -> onnx.TensorProto:
    """Weights `w` of a shape."""
    values = np.random.default_rng(seed).normal(size=shape).astype(kind)
    return numpy_helper.from_array(values, "w")


def bias(value: float = 0.5) -> onnx.TensorProto:
    """A bias `b` of all classes."""
    return numpy_helper.from_array(np.full(CLASSES, value, np.float32), "b")


def node(kind: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    """One node; its inputs are separated by blanks."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


POOLED = [node("GlobalAveragePool", "input", "pooled"), node("Flatten", "pooled", "flat")]
PLAIN = [*POOLED, node("MatMul", "flat w", "y")]


def model(
    nodes: Sequence[NodeProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    takes: Axes = ("N", 3, SIZE, SIZE),
    gives: Axes = ("N", CLASSES),
    types: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    opset: int = 18,
    ir: int = 10,
    domains: Sequence[str] = (),
) -> ModelProto:
    """A model of one input and one output."""
    graph = helper.make_graph(
        list(nodes),
        "zoo",
        [helper.make_tensor_value_info("input", types[0], list(takes))],
        [helper.make_tensor_value_info("y", types[1], list(gives))],
        list(weights),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def written(made: ModelProto) -> Callable[[Path], object]:
    """What writes the model as one file."""
    return lambda path: path.write_bytes(made.SerializeToString())


def beside(made: ModelProto, name: str) -> Callable[[Path], object]:
    """What writes the model with its weights in a file of this name."""

    def write(path: Path) -> None:
        (path.parent / name).parent.mkdir(exist_ok=True)
        options = {"save_as_external_data": True, "location": name, "size_threshold": 0}
        copy = ModelProto.FromString(made.SerializeToString())  # onnx changes what it writes
        onnx.save_model(copy, path, **options)  # type: ignore[arg-type]

    return write


def with_function() -> ModelProto:
    """A model whose last layer is a function of its own."""
    made = model([*POOLED, node("Head", "flat w", "y", domain="own")], [weight(3, CLASSES)])
    opsets = [helper.make_opsetid("", 18)]
    head = helper.make_function(
        "own", "Head", ["a", "b"], ["c"], [node("MatMul", "a b", "c")], opsets
    )
    made.functions.append(head)
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def among_inputs(opset: int) -> ModelProto:
    """A model as older exporters wrote them: its weights stand among its inputs, too."""
    made = model(PLAIN, [weight(3, CLASSES)], opset=opset, ir=3)
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, CLASSES]))
    return made


HALF = (TensorProto.FLOAT16, TensorProto.FLOAT16)
DOUBLE = (TensorProto.DOUBLE, TensorProto.DOUBLE)
W = weight(3, CLASSES)
LAST = [
    node("Transpose", "input", "t", perm=[0, 3, 1, 2]),
    node("GlobalAveragePool", "t", "pooled"),
]
TWO_ROWS = numpy_helper.from_array(np.array([2, 3], np.int64), "s")
MIXED = numpy_helper.from_array(np.array([-1, 6], np.int64), "s")
RATIO = numpy_helper.from_array(np.array(0.5, np.float32), "ratio")
ON = numpy_helper.from_array(np.array(True), "on")

ZOO = (
    ZooModel("plain", written(model(PLAIN, [W]))),
    ZooModel("opset-8", written(among_inputs(8))),
    ZooModel("opset-11", written(model(PLAIN, [W], opset=11, ir=6))),
    ZooModel("opset-26", written(model(PLAIN, [W], opset=26, ir=13))),
    ZooModel("half", written(model(PLAIN, [weight(3, CLASSES, kind=np.float16)], types=HALF))),
    ZooModel(
        "double",
        written(model(PLAIN, [weight(3, CLASSES, kind=np.float64)], types=DOUBLE)),
        "load",
        "no GlobalAveragePool for this type",
        "float32",
    ),
    ZooModel(
        "fixed-batch", written(model(PLAIN, [W], takes=(1, 3, SIZE, SIZE), gives=(1, CLASSES)))
    ),
    ZooModel("any-size", written(model(PLAIN, [W], takes=("N", 3, "H", "W")))),
    ZooModel("no-names-of-axes", written(model(PLAIN, [W], takes=(None, 3, SIZE, SIZE)))),
    ZooModel("function", written(with_function())),
    ZooModel("sidecar", beside(model(PLAIN, [W]), "model.onnx.data")),
    ZooModel("sidecar-with-a-space", beside(model(PLAIN, [W]), "the weights.bin")),
    ZooModel(
        "beta", written(model([*POOLED, node("Gemm", "flat w b", "y", beta=0.5)], [W, bias()]))
    ),
    ZooModel(
        "shared-weight",
        written(
            model(
                [*POOLED, node("Gemm", "flat w", "g", transB=1), node("MatMul", "g w", "y")],
                [weight(3, 3)],
            )
        ),
    ),
    ZooModel(
        "optimized",
        written(
            model(
                [*POOLED, node("FusedMatMul", "flat w", "y", domain="com.microsoft")],
                [W],
                domains=["com.microsoft"],
            )
        ),
    ),
    ZooModel("ir-14", written(model(PLAIN, [W], ir=14)), "load", "IR version is 14", "lower it"),
    ZooModel(
        "opset-28", written(model(PLAIN, [W], opset=28)), "load", "opset is 28", "lower opset"
    ),
    ZooModel(
        "unknown-operator",
        written(model([node("Mystery", "input", "y")])),
        "load",
        "no operator Mystery",
        "standard operators",
    ),
    ZooModel(
        "own-domain",
        written(model([node("Mystery", "input", "y", domain="own")], domains=["own"])),
        "load",
        "no operator Mystery of own",
        "standard operators",
    ),
    ZooModel(
        "channels-last",
        written(model([*LAST, *PLAIN[1:]], [W], takes=("N", SIZE, SIZE, 3))),
        "contract",
        "channels last",
        "channels first",
    ),
    ZooModel(
        "bytes-in",
        written(
            model(
                [
                    node("Cast", "input", "c", to=1),
                    node("GlobalAveragePool", "c", "pooled"),
                    *PLAIN[1:],
                ],
                [W],
                types=(TensorProto.UINT8, TensorProto.FLOAT),
            )
        ),
        "contract",
        "uint8",
        "without image conversion",
    ),
    ZooModel(
        "another-size",
        written(model(PLAIN, [W], takes=("N", 3, 20, 20))),
        "contract",
        "the images have 16 pixels",
        "preprocess.img_size",
    ),
    ZooModel(
        "grey",
        written(model(PLAIN, [weight(1, CLASSES)], takes=("N", 1, SIZE, SIZE))),
        "contract",
        "the images have 3 channels",
        "for colour images",
    ),
    ZooModel(
        "oblong",
        written(model(PLAIN, [W], takes=("N", 3, SIZE, 2 * SIZE))),
        "contract",
        "expected a square one",
        "as many rows as columns",
    ),
    ZooModel(
        "burnt-batch",
        written(
            model(
                [*POOLED, node("Reshape", "flat s", "r"), node("MatMul", "r w", "y")], [W, TWO_ROWS]
            )
        ),
        "outputs",
        "its batch is fixed inside",
        "dynamic batch",
    ),
    ZooModel(
        "two-images-a-row",
        written(
            model(
                [*POOLED, node("Reshape", "flat s", "r"), node("MatMul", "r w", "y")],
                [weight(6, CLASSES), MIXED],
            )
        ),
        "outputs",
        "it answers 4 image(s) with 2 rows",
        "one row of answers",
    ),
    ZooModel(
        "over-the-batch",
        written(
            model(
                [
                    *PLAIN[:2],
                    node("ReduceMean", "flat", "mean", axes=[0]),
                    node("Sub", "flat mean", "free"),
                    node("MatMul", "free w", "y"),
                ],
                [W],
                opset=13,
                ir=8,
            )
        ),
        "outputs",
        "by itself otherwise than among others",
        "mixes images",
    ),
    ZooModel(
        "random",
        written(
            model(
                [*POOLED, node("MatMul", "flat w", "l"), node("Dropout", "l ratio on", "y")],
                [W, RATIO, ON],
            )
        ),
        "outputs",
        "differently the second time",
        "model.eval()",
    ),
    ZooModel(
        "labels",
        written(
            model(
                [
                    *PLAIN[:2],
                    node("MatMul", "flat w", "l"),
                    node("ArgMax", "l", "y", axis=1, keepdims=0),
                ],
                [W],
                gives=("N",),
                types=(TensorProto.FLOAT, TensorProto.INT64),
            )
        ),
        "contract",
        "expected an output [N, classes]",
        "logits as the first output",
    ),
    ZooModel(
        "constant",
        written(
            model(
                [*POOLED, node("MatMul", "flat w", "l"), node("Mul", "l zero", "y")],
                [W, numpy_helper.from_array(np.array(0, np.float32), "zero")],
            )
        ),
        "outputs",
        "answers the same to 4 differing images",
        "good checkpoint",
    ),
    ZooModel(
        "no-numbers",
        written(model(PLAIN, [numpy_helper.from_array(np.full((3, 3), np.nan, np.float32), "w")])),
        "outputs",
        "NaN",
        "good checkpoint",
    ),
    ZooModel(
        "cut-off",
        lambda path: path.write_bytes(model(PLAIN, [W]).SerializeToString()[:-20]),
        "load",
        "damaged",
        "restore it",
    ),
)
