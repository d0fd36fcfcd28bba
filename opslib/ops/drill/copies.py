"""A copy of the experiment that a staging service may change: two models and a configuration."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from opslib.core.cards import REPORT_NAME, ModelCard, card_path, read_card, read_export_report
from opslib.core.config import Config
from opslib.core.errors import ModelError, storage_errors
from opslib.core.files import link_atomic
from opslib.core.models import find_model_files
from opslib.ops.quantize.source import copy_source

COPIES = 2


@dataclass(frozen=True)
class Copied:
    """The copy: its configuration, the model to begin with, and further copies of both models. A
    copy under another path is not the one that a service keeps loaded, so that switching to it
    takes a full load with all checks."""

    config_path: Path
    stable: Path
    stable_copies: tuple[Path, ...]
    other_copies: tuple[Path, ...]

    @property
    def export_dir(self) -> Path:
        """The folder that the service takes models from."""
        return self.stable.parent


def copy_experiment(config: Config, stable: Path, other: Path, folder: Path) -> Copied:
    """Copy two models with all that belongs to them into `folder`, and a configuration that is the
    given one but for the places. Raises ModelError: a model or its sidecar is missing or damaged;
    InputError: so is its card; StorageError: `folder` cannot be written."""
    export = folder / "exp" / "export"
    with storage_errors(f"copy the models into {folder}"):
        begin = copy_unit(stable, export)
        link_atomic(export / "latest.onnx", begin.name)
        report = config.export_dir / REPORT_NAME
        if read_export_report(config.export_dir) is not None:
            shutil.copyfile(report, export / report.name)
        names = range(1, COPIES + 1)
        stable_copies = tuple(copy_unit(stable, export / f"stable-{one}") for one in names)
        other_copies = tuple(copy_unit(other, export / f"other-{one}") for one in names)
    return Copied(_write_config(config, folder), begin, stable_copies, other_copies)


def copy_unit(model: Path, folder: Path) -> Path:
    """Copy a model with its sidecars, its card and its golden images; return the new path."""
    source = find_model_files(model).path
    copy, card = copy_source(source, folder), read_card(source)
    if card is not None:
        _copy_golden(card, source.parent, folder).write(card_path(copy))
    return copy


def _copy_golden(card: ModelCard, source: Path, folder: Path) -> ModelCard:
    """Copy the card's golden images, wherever they lie, and return the card that names them."""
    names = {}
    for number, answer in enumerate(card.golden_images):
        names[answer.image] = f"golden/{number}-{Path(answer.image).name}"
        (folder / "golden").mkdir(exist_ok=True)
        shutil.copyfile(source / answer.image, folder / names[answer.image])
    changed: dict[str, object] = {}
    for field in ("golden", "golden_outputs"):
        found = getattr(card, field)
        changed[field] = tuple(one.model_copy(update={"image": names[one.image]}) for one in found)
    return card.model_copy(update=changed)


def _write_config(config: Config, folder: Path) -> Path:
    content = config.model_dump(mode="json", exclude={"source"})
    content["paths"] |= {
        "exp_dir": str(folder / "exp"),
        "data_root": str(config.data_root),
        "code_root": str(config.code_root) if config.code_root else None,
        "report_dir": str(folder / "reports"),
    }
    content["export"]["out_dir"] = None
    content["models"] = {}  # of whatever kind the two are, the copy has no other
    content["reload"] |= {"model_dirs": [], "restore_dir": None}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


OPSET = 18
IR_VERSION = 10


@dataclass(frozen=True)
class ClassifierShape:
    """What a classifier takes and answers: element type (onnx's number), axes, classes. A free axis
    is None."""

    dtype: int
    height: int | None
    width: int | None
    classes: int


def read_classifier_shape(path: Path) -> ClassifierShape:
    """Return the signature of the ONNX classifier at `path`, without loading its weights. Raises
    ModelError: it has no image input or no fixed number of classes."""
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
        first = graph.input[0].type.tensor_type
        axes = [int(axis.dim_value) or None for axis in first.shape.dim]
        classes = int(graph.output[0].type.tensor_type.shape.dim[-1].dim_value)
    except Exception as error:  # protobuf's and onnx's own classes share no base but Exception
        raise ModelError(f"{path}: its signature cannot be read: {error}") from error
    if len(axes) != 4 or classes < 2:
        raise ModelError(f"{path}: expected an input [N, 3, H, W] and a fixed number of classes")
    return ClassifierShape(int(first.elem_type), axes[2], axes[3], classes)


def write_stand_in(
    path: Path, signature: ClassifierShape, *, fill: float | None = None, sidecar: bool = False
) -> Path:
    """Write a linear classifier of this signature and return its path. `fill`: the value of every
    weight; random ones by default. `sidecar`: keep the weights in a file beside it."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    kind = helper.tensor_dtype_to_np_dtype(signature.dtype)

    def make(name: str, *shape: int) -> Any:
        values = rng.normal(size=shape) if fill is None else np.full(shape, fill)
        return numpy_helper.from_array(values.astype(kind), name)

    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
    ]
    image = [None, 3, signature.height, signature.width]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("input", signature.dtype, image)],
        [helper.make_tensor_value_info("logits", signature.dtype, [None, signature.classes])],
        [make("weight", 3, signature.classes), make("bias", signature.classes)],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    onnx.save_model(
        model, path, save_as_external_data=sidecar, location=f"{path.name}.data", size_threshold=0
    )
    return path
