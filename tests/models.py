"""Small real ONNX models and images for tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from opslib.core.files import sha256_file


def write_onnx(
    path: Path,
    *,
    classes: int = 3,
    size: int | str = 16,
    batch: int | str = "N",
    dtype: int = TensorProto.FLOAT,
    sidecar: bool = False,
    seed: int = 0,
    head: str | None = None,
) -> Path:
    """Write a classifier (pool, flatten, linear) and return its path.

    Args:
        head: an operator that its logits go through, such as Softmax.
    """
    rng = np.random.default_rng(seed)
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = [
        numpy_helper.from_array(rng.normal(size=(3, classes)).astype(kind), "weight"),
        numpy_helper.from_array(rng.normal(size=(classes,)).astype(kind), "bias"),
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
        *([helper.make_node(head, ["logits"], ["y"])] if head else []),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input", dtype, [batch, 3, size, size])],
        [helper.make_tensor_value_info("y" if head else "logits", dtype, [batch, classes])],
        weights,
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        model,
        path,
        save_as_external_data=sidecar,
        location=f"{path.name}.data",
        size_threshold=0,
    )
    return path


def write_images(folder: Path, count: int = 4, *, size: int = 24, seed: int = 0) -> list[Path]:
    """Write small JPEG files `0.jpg`, `1.jpg`, ... and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for index in range(count):
        pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
        paths.append(folder / f"{index}.jpg")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def move_into_cache(folder: Path, hub: Path) -> Path:
    """Move a folder's files into a Hugging Face cache: under their digests in `blobs`, with links
    to them under their names in a folder of `snapshots`, which is returned."""
    snapshot = hub / "models--pill--net/snapshots/5e8c1f"
    blobs = hub / "models--pill--net/blobs"
    blobs.mkdir(parents=True)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = blobs / sha256_file(path)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def write_config(folder: Path, extra: str = "") -> Path:
    """Write a configuration whose experiment and images lie in `folder`; return its path."""
    path = folder / "config.yaml"
    path.write_text(f"paths:\n  exp_dir: exp\n  data_root: images\n{extra}")
    return path
