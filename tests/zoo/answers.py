"""Models that answer, or are asked, in other ways than one row of logits an image."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.inference.zoo import (
    CLASSES,
    PLAIN,
    POOLED,
    SIZE,
    W,
    ZooModel,
    model,
    node,
    weight,
    written,
)

LOGITS = [*POOLED, node("MatMul", "flat w", "l")]
TEXT, WHOLE = TensorProto.STRING, TensorProto.INT64
COLUMN = weight(3, 1)


def with_output(made: ModelProto, name: str, kind: int, axes: list[str | int]) -> ModelProto:
    """The model with one more output behind its first."""
    made.graph.output.append(helper.make_tensor_value_info(name, kind, axes))
    return made


def with_input(made: ModelProto, name: str, kind: int, axes: list[str | int]) -> ModelProto:
    """The model with one more input behind its first."""
    made.graph.input.append(helper.make_tensor_value_info(name, kind, axes))
    return made


def with_labels() -> ModelProto:
    """What sklearn's converter writes: a label in words, then a map of probabilities."""
    names = ["round", "oval", "capsule"]
    nodes = [
        *LOGITS,
        node("ArgMax", "l", "id", axis=1, keepdims=0),
        node(
            "LabelEncoder",
            "id",
            "y",
            domain="ai.onnx.ml",
            keys_int64s=[0, 1, 2],
            values_strings=names,
        ),
        node("Softmax", "l", "p", axis=1),
        node("ZipMap", "p", "map", domain="ai.onnx.ml", classlabels_strings=names),
    ]
    made = model(nodes, [W], gives=("N",), types=(TensorProto.FLOAT, TEXT), domains=[])
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    pair = helper.make_map_type_proto(TEXT, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    made.graph.output.append(helper.make_value_info("map", helper.make_sequence_type_proto(pair)))
    return made


def with_map_first() -> ModelProto:
    """The same with the map of probabilities as its first output."""
    made = with_labels()
    first, second = list(made.graph.output)
    del made.graph.output[:]
    made.graph.output.extend([second, first])
    return made


def with_branch() -> ModelProto:
    """A model whose last layer stands in an If, as scripted modules come out."""
    answer = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", CLASSES])
    then = helper.make_graph([node("MatMul", "flat w", "z")], "then", [], [answer])
    other = helper.make_graph([node("MatMul", "flat w", "z")], "else", [], [answer])
    on = numpy_helper.from_array(np.array(True), "on")
    nodes = [*POOLED, node("If", "on", "y", then_branch=then, else_branch=other)]
    return model(nodes, [W, on])


def quantized(*, dynamic: bool) -> ModelProto:
    """A model that is INT8 already, in one of the two forms that ONNX Runtime writes."""
    small = numpy_helper.from_array(np.array([[9, -7, 3], [-5, 8, 1], [2, 4, -9]], np.int8), "w")
    scale = numpy_helper.from_array(np.array(0.05, np.float32), "s")
    zero = numpy_helper.from_array(np.array(0, np.int8), "z")
    if not dynamic:
        nodes = [
            *POOLED,
            node("QuantizeLinear", "flat s z", "q"),
            node("DequantizeLinear", "q s z", "d"),
            node("DequantizeLinear", "w s z", "dw"),
            node("MatMul", "d dw", "y"),
        ]
        return model(nodes, [small, scale, zero])
    nodes = [
        *POOLED,
        helper.make_node("DynamicQuantizeLinear", ["flat"], ["q", "qs", "qz"]),
        node("MatMulInteger", "q w qz z", "i"),
        node("Cast", "i", "f", to=1),
        node("Mul", "f qs", "g"),
        node("Mul", "g s", "y"),
    ]
    return model(nodes, [small, scale, zero])


def normalised() -> ModelProto:
    """A model whose batch norm was left in training."""
    parts = {"scale": 1.0, "shift": 0.0, "mean": 0.0, "var": 1.0}
    given = [numpy_helper.from_array(np.full(3, v, np.float32), k) for k, v in parts.items()]
    norm = helper.make_node(
        "BatchNormalization",
        ["input", *parts],
        ["normal", "mean2", "var2"],
        training_mode=1,
    )
    return model([norm, node("GlobalAveragePool", "normal", "pooled"), *PLAIN[1:]], [*given, W])


def half_inside() -> ModelProto:
    """A float16 model that takes and answers float32, as the usual converter leaves it."""
    nodes = [
        node("Cast", "input", "h", to=10),
        node("GlobalAveragePool", "h", "pooled"),
        node("Flatten", "pooled", "flat"),
        node("MatMul", "flat w", "l"),
        node("Cast", "l", "y", to=1),
    ]
    return model(nodes, [weight(3, CLASSES, kind=np.float16)])


ANSWERS = (
    ZooModel("softmax", written(model([*LOGITS, node("Softmax", "l", "y", axis=1)], [W]))),
    ZooModel("log-softmax", written(model([*LOGITS, node("LogSoftmax", "l", "y", axis=1)], [W]))),
    ZooModel("sigmoid", written(model([*LOGITS, node("Sigmoid", "l", "y")], [W]))),
    ZooModel("one-column", written(model(PLAIN, [COLUMN], gives=("N", 1)))),
    ZooModel(
        "one-column-sigmoid",
        written(model([*LOGITS, node("Sigmoid", "l", "y")], [COLUMN], gives=("N", 1))),
    ),
    ZooModel(
        "label-words",
        written(with_labels()),
        stage="contract",
        says="expected an output [N, classes]",
        hint="logits as the first output",
    ),
    ZooModel(
        "map-first",
        written(with_map_first()),
        stage="contract",
        says="expected an output [N, classes]",
        hint="logits as the first output",
    ),
    ZooModel(
        "features-beside",
        written(with_output(model(PLAIN, [W]), "flat", TensorProto.FLOAT, ["N", 3])),
    ),
    ZooModel(
        "feature-map",
        written(model([node("Relu", "input", "y")], gives=("N", 3, SIZE, SIZE))),
        stage="contract",
        says="expected an output [N, classes]",
        hint="logits as the first output",
    ),
    ZooModel(
        "not-flattened",
        written(
            model(
                [POOLED[0], node("Conv", "pooled w", "y")],
                [weight(CLASSES, 3, 1, 1)],
                gives=("N", CLASSES, 1, 1),
            )
        ),
        stage="contract",
        says="expected an output [N, classes]",
        hint="logits as the first output",
    ),
    ZooModel(
        "top-k",
        written(
            with_output(
                model(
                    [*LOGITS, helper.make_node("TopK", ["l", "k"], ["y", "ids"])],
                    [W, numpy_helper.from_array(np.array([2], np.int64), "k")],
                    gives=("N", 2),
                ),
                "ids",
                WHOLE,
                ["N", 2],
            )
        ),
        "contract",
        "sorts them (TopK)",
        "its logits as the first output",
    ),
    ZooModel(
        "two-inputs",
        written(
            with_input(
                model([*LOGITS, node("Mul", "l temperature", "y")], [W]),
                "temperature",
                TensorProto.FLOAT,
                [1],
            )
        ),
        stage="contract",
        says="expected one image input",
        hint="the image as its only input",
    ),
    ZooModel(
        "one-number",
        written(
            model(
                [
                    *PLAIN[:2],
                    node("MatMul", "flat w", "l"),
                    node("ReduceSum", "l", "y", keepdims=0),
                ],
                [W],
                gives=(),
            )
        ),
        stage="outputs",
        says="with 0 rows",
        hint="one row of answers",
    ),
    ZooModel(
        "size-burnt-in",
        written(
            model(
                [node("Flatten", "input", "flat"), node("MatMul", "flat w", "y")],
                [weight(3 * 20 * 20, CLASSES)],
                takes=("N", 3, "H", "W"),
            )
        ),
        stage="outputs",
        says="images of another size",
        hint="preprocess.img_size",
    ),
    ZooModel("classes-not-said", written(model(PLAIN, [W], gives=("N", "C")))),
    ZooModel("branch", written(with_branch())),
    ZooModel("int8-static", written(quantized(dynamic=False))),
    ZooModel("int8-dynamic", written(quantized(dynamic=True))),
    ZooModel(
        "batch-norm-in-training",
        written(normalised()),
        stage="outputs",
        says="differently the second time",
        hint="model.eval()",
    ),
    ZooModel("half-inside", written(half_inside())),
    ZooModel(
        "bgr-bytes-scaled",
        written(
            model(
                [node("Div", "input k", "n"), node("GlobalAveragePool", "n", "pooled"), *PLAIN[1:]],
                [W, numpy_helper.from_array(np.array(255, np.float32), "k")],
            )
        ),
    ),
)
