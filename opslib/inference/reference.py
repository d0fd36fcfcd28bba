"""The reference network: a small frozen network that is timed beside whatever is measured.

Placement, neighbours and frequency of a host slow both alike, so the ratio of the two holds from
one day to the next where milliseconds do not. It has the operators of the networks that are
served, weights from a formula, and never changes: `SHA256` holds graph and weights. A twin for
Torch has the same weights. `prepare` is the preprocessing that goes with it, frozen too.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import storage_errors

if TYPE_CHECKING:
    from torch import nn

CLASSES = 8
IR_VERSION, OPSET = 8, 17
FACTORY = "opslib.inference.reference:build_twin"
PREPARE = "opslib.inference.reference:prepare"
SHA256 = "c1a57c973fad75bfbcaddd79ebd22c02af2297ab397b380f84cf52b86ec205c7"


@dataclass(frozen=True)
class _Conv:
    """A 3 x 3 convolution and its activation; `shortcut` names whose output is added before it."""

    name: str
    channels_in: int
    channels: int
    stride: int = 1
    shortcut: str | None = None


# Residual stages of plain convolutions: what elementwise work costs beside them differs from one
# state of a host to the next, so there is as little of it as such networks can have.
_CONVS = (
    _Conv("stem", 3, 16, stride=2),
    _Conv("reduce1", 16, 32, stride=2),
    _Conv("refine1", 32, 32, shortcut="reduce1"),
    _Conv("reduce2", 32, 64, stride=2),
    _Conv("refine2", 64, 64, shortcut="reduce2"),
    _Conv("reduce3", 64, 96, stride=2),
    _Conv("refine3", 96, 96, shortcut="reduce3"),
)


def write_reference(folder: Path, engine: str) -> Path:
    """Write the network for one engine, `onnx` or `torch`, and return its file.

    It takes float32 images `[N, 3, H, W]` of any number and size and answers `[N, 8]`. Raises
    StorageError: it cannot be written.
    """
    path = reference_path(folder, engine)
    if engine == "onnx":
        data = build_reference()
    else:
        import torch

        written = io.BytesIO()
        state = {name: torch.from_numpy(value) for name, value in _weights().items()}
        torch.save({"state_dict": state, "num_classes": CLASSES}, written)
        data = written.getvalue()
    with storage_errors(f"write {path}"):
        path.write_bytes(data)
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
            [f"{one.name}_conv"],
            kernel_shape=[3, 3],
            strides=[one.stride] * 2,
            pads=[1] * 4,
        )
        nodes.append(conv)
        shown = f"{one.name}_conv"
        if one.shortcut:
            nodes.append(helper.make_node("Add", [shown, one.shortcut], [f"{one.name}_sum"]))
            shown = f"{one.name}_sum"
        nodes.append(helper.make_node("Relu", [shown], [one.name]))
        shown = one.name
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
                layer = nn.Conv2d(one.channels_in, one.channels, 3, one.stride, padding=1)
                setattr(self, one.name, layer)
            self.classes = nn.Linear(_CONVS[-1].channels, num_classes)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            shown, seen = images, dict[str, torch.Tensor]()
            for one in _CONVS:
                shown = getattr(self, one.name)(shown)
                if one.shortcut:
                    shown = shown + seen[one.shortcut]
                shown = seen[one.name] = nn.functional.relu(shown)
            logits: torch.Tensor = self.classes(shown.mean(dim=(2, 3)))
            return logits

    return Twin()


def _weights() -> dict[str, NDArray[np.float32]]:
    """Weights and biases by name: a multiplicative congruence, scaled as He et al. (2015) do."""
    shapes: dict[str, tuple[int, ...]] = {}
    for one in _CONVS:
        kernel = (one.channels, one.channels_in, 3, 3)
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
