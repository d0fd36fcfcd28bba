"""Valid variants of a model: the same network as other exporters, tools and hands leave it.

A mutation takes a model and a source of chance and changes the model. `vary` keeps one only where
the model is still valid by onnx's own checker. Those of `SAME` keep what the model answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

Mutation = Callable[[ModelProto, random.Random], None]
ODD_NAMES = (
    "a name with blanks",
    "x:0",
    "/model/head/Gemm_output_0",
    "StatefulPartitionedCall:0",
    "σ(плёнка)",
    "💊",
    "NaN",
    "..",
    "a'b\"c",
    "two\nlines",
    "[bold]no markup[/bold]",
    "%s {0}",
    "long" * 80,
)
SIDECARS = (
    "model.onnx.data",
    "model.onnx_data",
    "the weights.bin",
    "w/model.bin",
    "gewichte-ü.bin",
)


def vary(model: ModelProto, mutations: list[str], chance: random.Random) -> ModelProto:
    """Return the model after the mutations of these names; one that spoils it is left out."""
    for name in mutations:
        tried = ModelProto()
        tried.CopyFrom(model)
        MUTATIONS[name](tried, chance)
        try:
            onnx.checker.check_model(tried)
        except onnx.checker.ValidationError:
            continue
        model = tried
    return model


def save(model: ModelProto, path: Path, sidecar: str | None) -> None:
    """Write the model, its weights in a file of this name if there is one."""
    if sidecar is None:
        path.write_bytes(model.SerializeToString())
        return
    (path.parent / sidecar).parent.mkdir(exist_ok=True)
    written = ModelProto.FromString(model.SerializeToString())  # onnx changes what it writes
    options = {"save_as_external_data": True, "location": sidecar, "size_threshold": 0}
    onnx.save_model(written, path, **options)  # type: ignore[arg-type]


def rename_tensors(model: ModelProto, chance: random.Random) -> None:
    """Give one to three tensors odd names."""
    names = sorted(_tensor_names(model.graph))
    odd = chance.sample(ODD_NAMES, 3)
    _rename(model.graph, dict(zip(chance.sample(names, min(3, len(names))), odd, strict=False)))


def _tensor_names(graph: GraphProto) -> set[str]:
    named = [*graph.input, *graph.output, *graph.initializer]
    return {one.name for one in named} | {n for node in graph.node for n in node.output if n}


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    for one in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        one.name = names.get(one.name, one.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in _subgraphs(node):
            _rename(inner, names)


def _subgraphs(node: onnx.NodeProto) -> Iterator[GraphProto]:
    yield from (one.g for one in node.attribute if one.HasField("g"))


def name_nodes(model: ModelProto, chance: random.Random) -> None:
    """Give every node a name or none."""
    for at, node in enumerate(model.graph.node):
        node.name = chance.choice((f"/layer/{at}", ""))


def permute_nodes(model: ModelProto, chance: random.Random) -> None:
    """Write the nodes in another order that is a topological one, too."""
    waiting, ordered = list(model.graph.node), list[onnx.NodeProto]()
    made_here = {name for node in waiting for name in node.output}
    while waiting:
        ready = [n for n in waiting if not (_needs(n) & made_here)]
        if not ready:
            return
        chosen = chance.choice(ready)
        waiting = [n for n in waiting if n is not chosen]
        made_here -= set(chosen.output)
        ordered.append(chosen)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _needs(node: onnx.NodeProto) -> set[str]:
    return set(node.input).union(*(_needs(n) for g in _subgraphs(node) for n in g.node))


def add_identity(model: ModelProto, chance: random.Random) -> None:
    """Put an Identity in front of one node's first input."""
    node = chance.choice([one for one in model.graph.node if one.input])
    fresh = f"same_{len(model.graph.node)}"
    identity = helper.make_node("Identity", [node.input[0]], [fresh])
    node.input[0] = fresh
    at = list(model.graph.node).index(node)
    model.graph.node.insert(at, identity)


def add_dead_node(model: ModelProto, _chance: random.Random) -> None:
    """Add a node whose answer nobody takes."""
    fresh = f"dead_{len(model.graph.node)}"
    model.graph.node.append(helper.make_node("Shape", [model.graph.input[0].name], [fresh]))


def add_unused_weight(model: ModelProto, chance: random.Random) -> None:
    """Add a weight that no node takes."""
    values = np.ones((chance.choice((1, 7)), 2), np.float32)
    name = f"unused_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(values, name))


def add_empty_weight(model: ModelProto, _chance: random.Random) -> None:
    """Add a weight without any element, which no node takes."""
    name = f"empty_{len(model.graph.initializer)}"
    empty = numpy_helper.from_array(np.ones((0, 2), np.float32), name)
    model.graph.initializer.append(empty)


def write_remarks(model: ModelProto, chance: random.Random) -> None:
    """Fill in producer, metadata and documentation."""
    model.producer_name, model.producer_version = chance.choice(ODD_NAMES), "2.13"
    model.doc_string = model.graph.doc_string = "said " * chance.choice((1, 5000))
    key = f"key {len(model.metadata_props)}"
    model.metadata_props.add(key=key, value=chance.choice(ODD_NAMES))


def forget_names_of_axes(model: ModelProto, _chance: random.Random) -> None:
    """Leave the free axes of input and output without names."""
    for one in (*model.graph.input, *model.graph.output):
        for axis in one.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.Clear()


def name_axes(model: ModelProto, chance: random.Random) -> None:
    """Give the batch axis another name."""
    name = chance.choice(("batch", "unk__617", "s77", "batch size", "-1"))
    for one in (*model.graph.input, *model.graph.output):
        axes = one.type.tensor_type.shape.dim
        if axes and not axes[0].HasField("dim_value"):
            axes[0].dim_param = name


def note_shapes(model: ModelProto, _chance: random.Random) -> None:
    """Write down every shape that can be inferred."""
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))


def forget_shapes(model: ModelProto, _chance: random.Random) -> None:
    """Leave away what is known of the tensors inside, and the output's shape."""
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")


def write_numbers_one_by_one(model: ModelProto, _chance: random.Random) -> None:
    """Keep float weights as a list of numbers instead of as bytes."""
    for one in model.graph.initializer:
        if one.data_type == TensorProto.FLOAT and one.HasField("raw_data"):
            values = numpy_helper.to_array(one).ravel().tolist()
            one.ClearField("raw_data")
            one.float_data.extend(values)


def make_constants(model: ModelProto, _chance: random.Random) -> None:
    """Write the weights as Constant nodes."""
    nodes = [helper.make_node("Constant", [], [w.name], value=w) for w in model.graph.initializer]
    del model.graph.initializer[:]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def list_weights_as_inputs(model: ModelProto, _chance: random.Random) -> None:
    """List the weights among the inputs, as older exporters do."""
    for one in model.graph.initializer:
        given = helper.make_tensor_value_info(one.name, one.data_type, list(one.dims))
        model.graph.input.append(given)


def wrap_in_function(model: ModelProto, _chance: random.Random) -> None:
    """Make a function of the last node."""
    node = model.graph.node[-1]
    if node.domain or any(_subgraphs(node)) or model.functions:
        return
    inner = onnx.NodeProto.FromString(node.SerializeToString())
    inputs = [f"in_{at}" for at in range(len(node.input))]
    outputs = [f"out_{at}" for at in range(len(node.output))]
    inner.input[:], inner.output[:] = inputs, outputs
    opsets = [one for one in model.opset_import if one.domain in ("", "ai.onnx")]
    function = helper.make_function("wrapped", "Last", inputs, outputs, [inner], opsets)
    call = helper.make_node("Last", list(node.input), list(node.output), domain="wrapped")
    model.graph.node[-1].CopyFrom(call)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("wrapped", 1))


def add_output(model: ModelProto, chance: random.Random) -> None:
    """Answer a tensor from inside, too."""
    inside = [name for node in model.graph.node for name in node.output if name]
    known = {one.name for one in model.graph.output}
    free = [name for name in inside if name not in known]
    kind = model.graph.input[0].type.tensor_type.elem_type
    if free:
        model.graph.output.append(helper.make_tensor_value_info(chance.choice(free), kind, None))


def set_opset(model: ModelProto, chance: random.Random) -> None:
    """Stamp another opset of the default domain."""
    next(one for one in model.opset_import if not one.domain).version = chance.randint(8, 28)


def set_ir(model: ModelProto, chance: random.Random) -> None:
    """Stamp another IR version."""
    model.ir_version = chance.randint(4, 14)


def make_half(model: ModelProto, _chance: random.Random) -> None:
    """Make a float16 model of it: weights, input and output."""
    for one in model.graph.initializer:
        if one.data_type == TensorProto.FLOAT:
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one).astype("f2"), one.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del model.graph.value_info[:]


def fix_batch(model: ModelProto, chance: random.Random) -> None:
    """Fix how many images it takes at a time."""
    size = chance.choice((1, 2, 3, 16))
    for one in (model.graph.input[0], model.graph.output[0]):
        if one.type.tensor_type.shape.dim:
            one.type.tensor_type.shape.dim[0].dim_value = size


def free_every_axis(model: ModelProto, _chance: random.Random) -> None:
    """Leave height and width open."""
    for at, axis in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        if at > 1:
            axis.dim_param = f"side{at}"


SAME: dict[str, Mutation] = {
    one.__name__: one
    for one in (
        rename_tensors,
        name_nodes,
        permute_nodes,
        add_identity,
        add_dead_node,
        add_unused_weight,
        write_remarks,
        forget_names_of_axes,
        name_axes,
        note_shapes,
        forget_shapes,
        write_numbers_one_by_one,
        make_constants,
        list_weights_as_inputs,
        wrap_in_function,
        add_output,
    )
}
OTHER: dict[str, Mutation] = {
    one.__name__: one
    for one in (set_opset, set_ir, make_half, fix_batch, free_every_axis, add_empty_weight)
}
MUTATIONS = SAME | OTHER
