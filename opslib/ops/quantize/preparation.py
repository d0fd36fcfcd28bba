"""A float32 model made ready for the quantizers, so that their own faults are not told as INT8's.

`quantize_dynamic` transposes a weight once for each layer that shares it, static quantization loses
the beta of a Gemm, and opset 10 saturates where an activation is never negative. The prepared graph
has none of these and answers as the model did; where it would not, the model is quantized as it is
and the record says so.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ModelError
from opslib.core.formatting import plural
from opslib.inference.causes import shorten_error
from opslib.inference.trial import try_model
from opslib.ops.quantize.source import QUANTIZABLE, is_large

if TYPE_CHECKING:
    import onnx_ir as ir

LEAST_OPSET = 13  # the first whose QuantizeLinear has an axis, which per-channel weights need
FLOAT_TOLERANCE = 1e-3  # of the answers' range: what a trial allows one model that is asked twice
_LEAST_IR = 8  # below 4 a weight has to be an input, too; 8 is what opset 13 came with


@dataclass(frozen=True)
class Prepared:
    """The model to quantize, and what was done to it, a phrase each."""

    path: Path
    done: tuple[str, ...] = ()


def prepare_graph(
    source: Path, target: Path, images: NDArray[np.float32], answers: NDArray[np.float32]
) -> Prepared:
    """Return the model without what the quantizers get wrong, written to `target` if need be.
    Weights that layers share are duplicated, alpha and beta of a Gemm become part of its weights
    and bias, an opset below 13 is raised. `images`: `[N, 3, H, W]`. `answers`: what the model
    answers to them, `[N, classes]`; the prepared one has to agree."""
    try:
        model, opset = _load_at_least(source)
        done = (*_separate_weights(model), *_fold_factors(model), *opset)
        if not done:
            return Prepared(source)
        _save(model, target, large=is_large(source))
        found = try_model(target, images=images).answered()
    except Exception as error:  # of onnx, onnx_ir and ONNX Runtime, which share no base
        return Prepared(source, (f"left as it is, since it failed ({shorten_error(error)})",))
    difference = float(np.abs(found - answers).max())
    if not difference <= FLOAT_TOLERANCE * (float(np.ptp(answers)) or 1.0):
        why = f"left as it is, since its float answers would change by {difference:.2g}"
        return Prepared(source, (why,))
    return Prepared(target, done)


def prepare_model(source: Path, target: Path) -> Path:
    """Write the model optimized and with inferred shapes, as static quantization needs it. Raises
    ModelError: shape inference cannot read it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    external = is_large(source)
    # Symbolic shape inference that ends early (onnxruntime 1.31.1) leaves its graph as
    # `sym_shape_infer_temp.onnx` where the process stands.
    problem: Exception | None = None
    with quiet(), contextlib.chdir(target.parent):
        for skip in (False, True):
            try:
                quant_pre_process(
                    str(source),
                    str(target),
                    skip_symbolic_shape=skip,
                    save_as_external_data=external,
                )
                break
            except Exception as error:  # bare ones, for what symbolic shape inference lacks
                problem = error
        else:
            why = shorten_error(problem) if problem else "no reason given"
            line = f"{source.name}: cannot be prepared for quantization: {why}"
            raise ModelError(line) from problem
    return _separate_again(target)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the quantizer's chatter off the screen; its errors still rise."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _load_at_least(source: Path) -> tuple[ir.Model, tuple[str, ...]]:
    """The model in an opset that the quantizers are right in, its weights known to be constant."""
    import onnx_ir as ir
    from onnx_ir.passes import common

    model, done = ir.load(source), ""
    opset = model.opset_imports.get("", LEAST_OPSET)
    if opset < LEAST_OPSET:
        try:
            model, done = _raise_opset(source), f"opset {opset} → {LEAST_OPSET}"
        except Exception as error:  # the converter's class derives from Exception alone
            done = f"opset stays {opset}, since it cannot be raised ({shorten_error(error)})"
    if model.functions:  # the quantizers do not look into them
        try:
            common.InlinePass()(model)
            inlined = "functions inlined"
        except Exception as error:  # of another opset than the model, as the pass refuses it
            model = ir.load(source)
            inlined = f"functions stay, since they cannot be inlined ({shorten_error(error)})"
        done = ", ".join(filter(None, (done, inlined)))
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(size_limit=0)(model)
    common.IdentityEliminationPass()(model)  # an exporter's way to say that weights are shared
    return model, (done,) if done else ()


def _raise_opset(source: Path) -> ir.Model:
    import onnx
    import onnx_ir as ir
    from onnx.inliner import inline_local_functions
    from onnx.version_converter import convert_version

    proto = inline_local_functions(onnx.load(source))  # the converter drops functions
    proto.ir_version = max(proto.ir_version, _LEAST_IR)
    return ir.from_proto(convert_version(proto, LEAST_OPSET))


def _separate_weights(model: ir.Model) -> tuple[str, ...]:
    """Give every layer that is quantized its own copy of a weight that others use, too."""
    import onnx_ir as ir

    shared = 0
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    graphs = {id(one.graph): one.graph for one in nodes if isinstance(one.graph, ir.Graph)}
    weights = [(graph, one) for graph in graphs.values() for one in graph.initializers.items()]
    for graph, (name, weight) in weights:
        uses = weight.uses()
        layers = [use for use in uses if use.node.op_type in QUANTIZABLE]
        if len(uses) == len(layers):
            layers = layers[1:]  # the first keeps the weight
        if not layers:
            continue
        shared += 1
        for number, use in enumerate(layers, start=2):
            copy = ir.Value(
                name=_unused(graph, f"{name}__{number}"),
                type=weight.type,
                shape=weight.shape,
                const_value=weight.const_value,
            )
            graph.register_initializer(copy)
            use.node.replace_input_with(use.idx, copy)
    return (f"{plural(shared, 'shared weight')} duplicated",) if shared else ()


def _unused(graph: ir.Graph, name: str) -> str:
    while name in graph.initializers:
        name += "_"
    return name


def _separate_again(prepared: Path) -> Path:
    """The model with weights apart that fusing brought to several layers, as two biases that were
    added by nodes of their own; `prepared` itself if there are none."""
    import onnx_ir as ir

    model, target = ir.load(prepared), prepared.with_name(f"separate-{prepared.name}")
    if not _separate_weights(model):
        return prepared
    _save(model, target, large=is_large(prepared))
    return target


def _fold_factors(model: ir.Model) -> tuple[str, ...]:
    """Multiply each Gemm's weights by its alpha and its bias by its beta."""
    import onnx_ir as ir

    counts = {"alpha": 0, "beta": 0}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type != "Gemm" or node.domain:
            continue
        for name, at in (("alpha", 1), ("beta", 2)):
            factor = node.attributes.get_float(name, 1.0)
            value = node.inputs[at] if at < len(node.inputs) else None
            tensor = value.const_value if value is not None and value.is_initializer() else None
            if factor == 1.0 or value is None or tensor is None:
                continue
            value.const_value = ir.tensor(tensor.numpy() * np.float32(factor), name=value.name)
            node.attributes[name] = ir.AttrFloat32(name, 1.0)
            counts[name] += 1
    return tuple(f"{name} folded in {count} Gemm" for name, count in counts.items() if count)


def _save(model: ir.Model, target: Path, *, large: bool) -> None:
    import onnx_ir as ir

    if not large:
        ir.external_data.load_to_model(model)
    ir.save(model, target, external_data=f"{target.name}.data" if large else None)
