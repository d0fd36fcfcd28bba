"""What becomes of a variant of one of the zoo's models when it is inspected, tried and prepared for
quantization."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path

import onnx
from onnx import ModelProto

from opslib.core.errors import ModelError
from opslib.core.models import find_model_files
from opslib.inference.causes import ModelCheckError, find_hint
from opslib.inference.checks import check_model
from opslib.inference.contract import probe_images
from opslib.inference.preprocess import preprocess
from opslib.inference.signature import read_signature
from opslib.inference.trial import try_model
from opslib.ops.quantize.preparation import prepare_graph, prepare_model
from opslib.ops.quantize.source import check_source, copy_source
from tests.inference.zoo import SIZE, ZooModel
from tests.zoo.mutations import SAME, save, vary
from tests.zoo.table import MODELS

MOST = 200
NOISE = ("onnxruntime::", "/onnxruntime_src", "ONNXRuntimeError", "Traceback", "\n")
WITHOUT_SIDECAR = ("branch", "top-k")  # ONNX Runtime takes neither with all weights outside
BASES: dict[str, ZooModel] = {one.name: one for one in MODELS if one.stage is None}


def try_variant(
    folder: Path, base: str, mutations: list[str], sidecar: str | None, chance: random.Random
) -> str | None:
    """Return what is wrong with the way in which a variant is taken, or None.

    A variant of the same network passes, as its model does; any other one may be refused.
    """
    path = folder / "model.onnx"
    sidecar = None if base in WITHOUT_SIDECAR else sidecar
    save(vary(_read(base), mutations, chance), path, sidecar)
    what = f"{base}, {mutations}, sidecar {sidecar}"
    files = find_model_files(path)
    with files.path.open("rb") as file:
        signature = read_signature(file, path.name)
    if not signature.inputs or not signature.outputs:
        return f"{what}: no input or output found"
    try:
        check_model(path, None, preprocess=preprocess, img_size=SIZE)
        fault = prepare(path)
        return f"{what}: {fault}" if fault else None
    except ModelCheckError as error:
        said = str(error).removeprefix(f"{path}: ")
        shown = f"{said}; {find_hint(error.stage, said)}"
        if set(mutations) <= SAME.keys():
            return f"{what}: the same network is refused: {shown}"
        if len(shown) > MOST or any(one in shown for one in NOISE):
            return f"{what}: {len(shown)} characters: {shown}"
    return None


def prepare(model: Path) -> str | None:
    """Return what is wrong with how a model that passes is prepared for the quantizers: it answers
    as before, or is refused in one line."""
    try:
        check_source(model)
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder) / "source"
            work.mkdir()
            images = probe_images(SIZE)
            answers = try_model(model, images=images).answered()
            graph = prepare_graph(copy_source(model, work), work / "graph.onnx", images, answers)
            prepare_model(graph.path, work / "prepared.onnx")
    except ModelError as error:
        said = str(error).removeprefix(f"{model}: ")
        return f"{len(said)} characters: {said}" if len(said) > MOST or "\n" in said else None
    return next((one for one in graph.done if "left as it is" in one), None)


@cache
def _read(base: str) -> ModelProto:
    """The model of this name, its weights inside."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        BASES[base].write(path)
        return onnx.load(path)
