"""Where a variant that lost accuracy parts from float32: the noise of each layer, and why.

Both graphs run without optimization with every layer's output shown, an image at a time, and the
tensors that they have in common by name are compared. In a QDQ graph it is the value after
quantizing that counts, since that is what the next layer is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opslib.inference.onnx_engine import make_session_options
from opslib.inference.providers import SessionSettings, select_onnx_providers
from opslib.ops.quantize.record import Divergence, LayerNoise

if TYPE_CHECKING:
    from onnx import ModelProto

Range = tuple[float, float]
LIMIT_DB = 20.0  # the noise is a tenth of the signal
MOST_DB = 120.0  # beyond, float32 itself ends
_AFTER = ("_DequantizeLinear_Output", "_DequantizeLinear_Output_1", "")
_BEFORE = ("_QuantizeLinear_Input", "")


@dataclass
class _Sums:
    """Energies and ranges of one layer over the images so far."""

    signal: float = 0.0
    noise: float = 0.0
    float_range: Range = (math.inf, -math.inf)
    int8_range: Range = (math.inf, -math.inf)

    def add(self, value: NDArray[np.float32], other: NDArray[np.float32]) -> None:
        wide = value.astype(np.float64)
        self.signal += float((wide**2).sum())
        self.noise += float(((wide - other) ** 2).sum())
        self.float_range = _widen(self.float_range, value)
        self.int8_range = _widen(self.int8_range, other)


def find_divergence(graph: Path, variant: Path, images: NDArray[np.float32]) -> Divergence:
    """Return how each layer of a variant differs from the float32 graph it was made of.

    The signal-to-noise ratio is 20·log10(‖x‖/‖x−y‖) dB of float32's values x and the variant's y,
    as `compute_signal_to_quantization_noice_ratio` of `onnxruntime.quantization.qdq_loss_debug`.

    `graph`: the float32 model; a graph that shows its layers is written beside it. `variant`: the
    INT8 model, likewise. `images`: `[N, 3, H, W]`, a few; memory holds all layers of one image.
    """
    import onnx

    float_model = onnx.load(graph, load_external_data=False)
    int8_model = onnx.load(variant, load_external_data=False)
    pairs, layers = _match_layers(float_model, int8_model)
    float_session = _open_showing(float_model, graph, list(pairs))
    int8_session = _open_showing(int8_model, variant, list(pairs.values()))
    sums = {name: _Sums() for name in pairs}
    for image in images:
        values, others = _show(float_session, image), _show(int8_session, image)
        for name, other in pairs.items():
            if name in values and other in others and values[name].shape == others[other].shape:
                sums[name].add(values[name], others[other])
    calibrated = _read_ranges(int8_model)
    noises = [
        LayerNoise(
            layer=layers[name],
            snr_db=_ratio_db(one),
            float_range=one.float_range,
            int8_range=one.int8_range,
            calibrated=calibrated.get(name),
        )
        for name, one in sums.items()
        if one.float_range[0] <= one.float_range[1]
    ]
    first = next((one for one in noises if one.snr_db is None or one.snr_db < LIMIT_DB), None)
    return Divergence(
        n=len(images),
        limit_db=LIMIT_DB,
        first=first.layer if first else None,
        finding=describe_first(first) if first else _describe_none(noises),
        layers=tuple(noises),
    )


def describe_first(one: LayerNoise) -> str:
    """Return which layer parts first and what is known of the reason, in a sentence."""
    is_first = "is the first layer where INT8 parts from float32"
    if one.snr_db is None:
        return (
            f"{one.layer} {is_first}: in float32 it is dead (0 for every image looked at), while "
            f"INT8 gives {_span(one.int8_range)}, since quantizing left its limit at 0 out. "
            "Take the dead layer out of the network, or keep float32."
        )
    head = f"{one.layer} ({one.snr_db:.0f} dB) {is_first}: "
    values = f"its values are {_span(one.float_range)}"
    if one.calibrated is not None and _exceeds(one.float_range, one.calibrated):
        return (
            f"{head}{values}, but calibration saw {_span(one.calibrated)} alone, so it saturates. "
            "Calibrate on images like those it is used on (--calibration)."
        )
    return f"{head}{values} in float32 and {_span(one.int8_range)} in INT8."


def _describe_none(noises: Sequence[LayerNoise]) -> str:
    if not noises:
        return "no layer of float32 can be found again in INT8 by its name."
    worst = min(noises, key=lambda one: MOST_DB if one.snr_db is None else one.snr_db)
    return (
        f"no layer by itself parts from float32 by a tenth ({LIMIT_DB:.0f} dB); the noisiest is "
        f"{worst.layer} ({worst.snr_db:.0f} dB). Many small errors add up."
    )


def _match_layers(
    float_model: ModelProto, int8_model: ModelProto
) -> tuple[dict[str, str], dict[str, str]]:
    """The tensors of float32 by name with the variant's, in the order they are computed, and what
    their layers are called; the input is the first."""
    there = {name for node in int8_model.graph.node for name in node.output}
    constants = {one.name for one in float_model.graph.initializer}
    inputs = (one.name for one in float_model.graph.input if one.name not in constants)
    layers = {name: f"the input {name}" for name in inputs}
    for node in float_model.graph.node:
        for name in node.output[:1]:
            layers[name] = node.name.strip("/") or f"{name} ({node.op_type})"
    twins = {name: [name + end for end in _AFTER if name + end in there] for name in layers}
    return {name: found[0] for name, found in twins.items() if found}, layers


def _open_showing(model: ModelProto, path: Path, names: Sequence[str]) -> Any:
    """A session of the model that gives these tensors besides its own outputs."""
    import onnx
    import onnxruntime as ort

    own = {one.name for one in (*model.graph.output, *model.graph.input)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in own)
    shown = path.with_name(f"shown-{path.name}")  # beside it, where its weights are found
    onnx.save(model, shown)
    settings = SessionSettings(graph_optimization_level="DISABLE_ALL", allow_spinning=False)
    options = make_session_options(settings, select_onnx_providers(("CPU",)))
    return ort.InferenceSession(str(shown), options, providers=["CPUExecutionProvider"])


def _show(session: Any, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The float tensors that a session shows for one image, repeated where its batch is fixed."""
    given = session.get_inputs()[0]
    size = given.shape[0] if isinstance(given.shape[0], int) else 1
    names = [one.name for one in session.get_outputs() if one.type == "tensor(float)"]
    batch = np.repeat(image[None], size, axis=0)
    shown = dict(zip(names, session.run(names, {given.name: batch}), strict=True))
    return shown | {given.name: batch}


def _read_ranges(model: ModelProto) -> dict[str, Range]:
    """What each quantized activation can be told as, from its scale and zero point."""
    from onnx import numpy_helper

    numbers = {one.name: one for one in model.graph.initializer}
    ranges: dict[str, Range] = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or not all(name in numbers for name in node.input[1:3]):
            continue
        scale, zero = (numpy_helper.to_array(numbers[name]) for name in node.input[1:3])
        limits = np.iinfo(zero.dtype)
        low, high = ((end - int(zero)) * float(scale) for end in (limits.min, limits.max))
        for end in _BEFORE:
            ranges[node.input[0].removesuffix(end)] = (low, high)
    return ranges


def _ratio_db(one: _Sums) -> float | None:
    if one.signal == 0.0 and one.noise > 0.0:
        return None
    return min(MOST_DB, 10.0 * math.log10(one.signal / one.noise)) if one.noise else MOST_DB


def _exceeds(values: Range, limits: Range) -> bool:
    """Whether values lie outside of limits by more than a twentieth of them."""
    spare = 0.05 * (limits[1] - limits[0])
    return values[0] < limits[0] - spare or values[1] > limits[1] + spare


def _widen(known: Range, values: NDArray[np.float32]) -> Range:
    return min(known[0], float(values.min())), max(known[1], float(values.max()))


def _span(limits: Range) -> str:
    low, high = (f"{end:.3g}".replace("-", "−") for end in limits)
    return low if low == high else f"{low} to {high}"
