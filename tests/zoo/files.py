"""Models written in other ways than one ONNX file with all inside."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.inference.zoo import (
    CLASSES,
    PLAIN,
    POOLED,
    W,
    ZooModel,
    among_inputs,
    beside,
    model,
    node,
    weight,
    written,
)
from tests.zoo.answers import with_branch

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 12345\n"
)
CONV = [
    node("Conv", "input k", "c", pads=[1, 1, 1, 1]),
    node("Relu", "c", "r"),
    node("GlobalAveragePool", "r", "pooled"),
    *PLAIN[1:],
]


def convolution() -> ModelProto:
    """A model with a convolution, which ONNX Runtime fuses with what follows."""
    kernel = numpy_helper.from_array(numpy_helper.to_array(weight(3, 3, 3, 3, seed=1)), "k")
    return model(CONV, [kernel, W])


def rewritten(level: str, form: str = "ONNX") -> Callable[[Path], object]:
    """What writes the model as ONNX Runtime rewrites it for itself."""

    def write(path: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", form)
        ort.InferenceSession(
            convolution().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    return write


def one_file_a_weight(path: Path) -> None:
    """Each weight in a file of its own, named after it."""
    made = model(
        [*POOLED, node("Gemm", "flat w b", "y")],
        [W, numpy_helper.from_array(np.full(CLASSES, 0.5, np.float32), "b")],
    )
    options = {"save_as_external_data": True, "all_tensors_to_one_file": False}
    onnx.save_model(made, path, **options, size_threshold=0)  # type: ignore[arg-type]


def as_a_cache_keeps_it(path: Path) -> None:
    """Links to files named by their digests, as the Hugging Face cache has them."""
    beside(model(PLAIN, [W]), "model.onnx_data")(path)
    (path.parent / "blobs").mkdir()
    for one in (path, path.parent / "model.onnx_data"):
        blob = path.parent / "blobs" / hashlib.sha256(one.read_bytes()).hexdigest()
        one.rename(blob)
        one.symlink_to(blob.relative_to(path.parent))


def without_weights(path: Path) -> None:
    """A model copied without its weights file."""
    beside(model(PLAIN, [W]), "model.onnx.data")(path)
    (path.parent / "model.onnx.data").unlink()


def weights_cut_off(path: Path) -> None:
    """A model whose weights file was not copied to its end."""
    beside(model(PLAIN, [W]), "model.onnx.data")(path)
    os.truncate(path.parent / "model.onnx.data", 20)


def weights_at(location: str) -> Callable[[Path], object]:
    """A model that names this place for its weights, where nothing of ours is."""

    def write(path: Path) -> None:
        made = model(PLAIN, [W])
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        path.write_bytes(made.SerializeToString())

    return write


def sparse() -> ModelProto:
    """A model whose weights are kept as the few that are not zero."""
    made = model(PLAIN)
    values = numpy_helper.from_array(np.array([1, -2, 3, 4], np.float32), "w")
    places = numpy_helper.from_array(np.array([0, 2, 4, 7], np.int64), "w_places")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, CLASSES]))
    return made


def renamed(given: str, answered: str) -> ModelProto:
    """A model whose input and output have these names."""
    made = model(PLAIN, [W])
    made.graph.input[0].name = made.graph.node[0].input[0] = given
    made.graph.output[0].name = made.graph.node[-1].output[0] = answered
    return made


def checkpoint(path: Path) -> None:
    """A Torch checkpoint that was given the wrong name."""
    import torch

    data = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, data)
    path.write_bytes(data.getvalue())


FILES = (
    *(
        ZooModel(f"opset-{o}", written(model(PLAIN, [W], opset=o, ir=i)))
        for o, i in ((13, 7), (17, 8), (21, 10), (24, 12))
    ),
    ZooModel("opset-9", written(among_inputs(9))),
    ZooModel("ir-13", written(model(PLAIN, [W], ir=13))),
    ZooModel("weights-in-a-folder", beside(model(PLAIN, [W]), "weights/model.bin")),
    ZooModel("one-file-a-weight", one_file_a_weight),
    ZooModel(
        "links-of-a-cache",
        as_a_cache_keeps_it,
        stage="load",
        says="is missing beside it",
        hint="cp -L",
    ),
    ZooModel(
        "weights-missing",
        without_weights,
        stage="load",
        says="is missing beside it",
        hint="with its weights file",
    ),
    ZooModel(
        "weights-cut-off",
        weights_cut_off,
        stage="load",
        says="shorter than its weights",
        hint="copy its weights file again",
    ),
    ZooModel(
        "weights-above",
        weights_at("../model.onnx.data"),
        stage="load",
        says="point outside its folder",
        hint="weights beside it",
    ),
    ZooModel(
        "weights-absolute",
        weights_at("/srv/models/model.onnx.data"),
        stage="load",
        says="point outside its folder",
        hint="weights beside it",
    ),
    ZooModel(
        "branch-with-weights-beside",
        beside(with_branch(), "model.onnx.data"),
        stage="load",
        says="another folder than its own",
        hint="weights inside",
    ),
    ZooModel("sparse", written(sparse())),
    ZooModel("odd-names", written(renamed("фото image:0", "Identity:0/σ"))),
    ZooModel("optimized-extended", rewritten("ORT_ENABLE_EXTENDED")),
    ZooModel("optimized-all", rewritten("ORT_ENABLE_ALL")),
    ZooModel(
        "ort",
        rewritten("ORT_ENABLE_BASIC", "ORT"),
        file="model.ort",
        stage="load",
        says="ONNX Runtime's own format",
        hint="the .onnx that it was made from",
    ),
    ZooModel(
        "ort-called-onnx",
        rewritten("ORT_ENABLE_BASIC", "ORT"),
        stage="load",
        says="ONNX Runtime's own format",
        hint="the .onnx that it was made from",
    ),
    ZooModel(
        "lfs-pointer",
        lambda path: path.write_text(POINTER),
        stage="load",
        says="Git LFS pointer",
        hint="git lfs pull",
    ),
    ZooModel(
        "checkpoint-called-onnx",
        checkpoint,
        stage="load",
        says="a zip file",
        hint="serve its export",
    ),
    ZooModel(
        "empty",
        lambda path: path.write_bytes(b""),
        stage="load",
        says="empty file",
        hint="restore it",
    ),
)
