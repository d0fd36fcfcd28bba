"""The reference network: a small frozen network that is timed beside whatever is measured.

Placement, neighbours and frequency of a host slow both alike, so the ratio of the two holds from
one day to the next where milliseconds do not. It has the operators of the networks that are
served, weights from a formula, and never changes: `SHA256` holds graph and weights. A twin for
Torch has the same weights. `prepare` is the preprocessing that goes with it, frozen too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

CLASSES = 8
IR_VERSION, OPSET = 8, 17
FACTORY = "opslib.inference.reference:build_twin"
PREPARE = "opslib.inference.reference:prepare"
SHA256 = "601e3916f2d878bdfd2afb923a632e2802d736c73cb7b21e5b545356c68f8bc7"


@dataclass(frozen=True)
class _Conv:
    """A convolution with its activation: channels, kernel, stride; `groups` as many as channels
    makes it one for each channel."""

    name: str
    channels_in: int
    channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    active: bool = True


# A stem, a fused and a depthwise block around a shortcut, and a head, as EfficientNetV2 has them.
_CONVS = (
    _Conv("stem", 3, 16, kernel=3, stride=2),
    _Conv("fused_expand", 16, 48, kernel=3, stride=2),
    _Conv("fused_project", 48, 32, active=False),
    _Conv("expand", 32, 96),
    _Conv("depthwise", 96, 96, kernel=3, groups=96),
    _Conv("project", 96, 32, active=False),
    _Conv("head", 32, 128, stride=2),
)
_SHORTCUT = ("fused_project", "project")


def write_reference(folder: Path, engine: str) -> Path:
    """Write the network for one engine, `onnx` or `torch`, and return its file.

    It takes float32 images `[N, 3, H, W]` of any number and size and answers `[N, 8]`.
    """
    path = reference_path(folder, engine)
    if engine == "onnx":
        path.write_bytes(build_reference())
        return path
    import torch

    state = {name: torch.from_numpy(value) for name, value in _weights().items()}
    torch.save({"state_dict": state, "num_classes": CLASSES}, path)
    return path


def reference_path(folder: Path, engine: str) -> Path:
    """Return where `write_reference` puts the network of one engine."""
    return folder / ("reference.onnx" if engine == "onnx" else "reference.pt")


def build_reference() -> bytes:
    """Return the ONNX file's bytes; the same for ever, see `SHA256`."""
    from onnx import TensorProto, helper, numpy_helper

    weights = _weights()
    nodes, shown = [], "images"
    for one in _CONVS:
        conv = helper.make_node(
            "Conv",
            [shown, f"{one.name}.weight", f"{one.name}.bias"],
            [one.name],
            kernel_shape=[one.kernel] * 2,
            strides=[one.stride] * 2,
            pads=[one.kernel // 2] * 4,
            group=one.groups,
        )
        nodes.append(conv)
        shown = one.name
        if one.active:
            shown = f"{one.name}_silu"
            nodes.append(helper.make_node("Sigmoid", [one.name], [f"{one.name}_gate"]))
            nodes.append(helper.make_node("Mul", [one.name, f"{one.name}_gate"], [shown]))
        if one.name == _SHORTCUT[1]:
            nodes.append(helper.make_node("Add", list(_SHORTCUT), ["sum"]))
            shown = "sum"
    nodes.append(helper.make_node("GlobalAveragePool", [shown], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    last = ["features", "classes.weight", "classes.bias"]
    nodes.append(helper.make_node("Gemm", last, ["logits"], transB=1))
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    return bytes(model.SerializeToString(deterministic=True))


def prepare(paths: Sequence[str], img_size: int) -> NDArray[np.float32]:
    """Return image files as `[N, 3, img_size, img_size]`, 0 to 1: what an end-to-end call of the
    reference begins with. Whatever is timed may prepare its images otherwise; this stays."""
    from PIL import Image

    batch = np.empty((len(paths), 3, img_size, img_size), dtype=np.float32)
    for at, path in enumerate(paths):
        with Image.open(path) as image:
            image.draft("RGB", (img_size, img_size))
            shown = image.convert("RGB").resize((img_size,) * 2, Image.Resampling.BILINEAR)
        batch[at] = (np.asarray(shown) / np.float32(255)).transpose(2, 0, 1)
    return batch


def build_twin(num_classes: int) -> nn.Module:
    """Return the same network for Torch, without its weights."""
    import torch
    from torch import nn

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for one in _CONVS:
                pad = one.kernel // 2
                layer = nn.Conv2d(
                    one.channels_in, one.channels, one.kernel, one.stride, pad, groups=one.groups
                )
                setattr(self, one.name, layer)
            self.classes = nn.Linear(_CONVS[-1].channels, num_classes)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            shown, seen = images, {}
            for one in _CONVS:
                shown = getattr(self, one.name)(shown)
                if one.active:
                    shown = nn.functional.silu(shown)
                seen[one.name] = shown
                if one.name == _SHORTCUT[1]:
                    shown = shown + seen[_SHORTCUT[0]]
            logits: torch.Tensor = self.classes(shown.mean(dim=(2, 3)))
            return logits

    return Twin()


def _weights() -> dict[str, NDArray[np.float32]]:
    """Weights and biases by name: a multiplicative congruence, scaled as He et al. (2015) do."""
    shapes: dict[str, tuple[int, ...]] = {}
    for one in _CONVS:
        kernel = (one.channels, one.channels_in // one.groups, one.kernel, one.kernel)
        shapes |= {f"{one.name}.weight": kernel, f"{one.name}.bias": (one.channels,)}
    shapes |= {"classes.weight": (CLASSES, _CONVS[-1].channels), "classes.bias": (CLASSES,)}
    values: dict[str, NDArray[np.float32]] = {}
    start = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        places = np.arange(start, start + count, dtype=np.uint64)
        mixed = (places * np.uint64(2654435761) % np.uint64(2**32)).astype(np.float64) / 2**32 - 0.5
        spread = math.sqrt(12 * 2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        values[name] = (mixed * spread).astype(np.float32).reshape(shape)
        start += count
    return values
