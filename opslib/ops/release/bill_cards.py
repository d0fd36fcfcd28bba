"""The model cards of a bill of materials: what models are for, take and answer, their figures."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import PureWindowsPath
from typing import Any

from cyclonedx.model.component import Component

from opslib.core.cards import ModelCard
from opslib.inference.signature import TensorSummary
from opslib.ops.release.manifest import ModelSummary

# What is longer is a table, such as one of each class, and stays in its file.
MAX_FIGURES = 20
_MODEL_KEYS = ("model", "onnx_path", "onnx")
_EXPORT = "the exported model against its checkpoint"


def make_card(
    model: ModelSummary,
    card: ModelCard | None,
    metrics: Sequence[Mapping[str, Any]],
    data: Component | None,
) -> dict[str, Any]:
    """Return the model card of a bill's component, CycloneDX 1.6: `card` lies beside the model,
    `metrics` are those of it, `data` is the component of what it was trained on."""
    figures = [figure for one in metrics for figure in _list_figures(one)]
    if card is not None:
        figures += _list_figures(card.model_extra or {})
        compare = card.compare.model_dump() if card.compare else {}
        figures += [{**one, "slice": _EXPORT} for one in _list_figures(compare)]
    facts: dict[str, Any] = {
        "task": "classification" if model.num_classes else None,
        "modelArchitecture": show_path(model.backbone),
        "datasets": [{"ref": data.bom_ref.value}] if data is not None else None,
        "inputs": [{"format": _show_tensor(one)} for one in model.inputs],
        "outputs": [{"format": _show_tensor(one)} for one in model.outputs],
    }
    made: dict[str, Any] = {"modelParameters": {key: one for key, one in facts.items() if one}}
    if figures:
        made["quantitativeAnalysis"] = {"performanceMetrics": figures}
    return made


def _show_tensor(tensor: TensorSummary) -> str:
    sides = ", ".join("?" if side is None else str(side) for side in tensor.shape)
    return f"{tensor.name}: {tensor.dtype} [{sides}]"


def name_models(metrics: Mapping[str, Any], main: str) -> set[str]:
    """The file names of the models that metrics are of: those that they name, else the one that
    the release is about."""
    named = [metrics[key] for key in _MODEL_KEYS if isinstance(metrics.get(key), str)]
    return {PureWindowsPath(one).name for one in named or [main]}


def _list_figures(content: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The numbers of a JSON object and those of the objects in it that are no tables."""
    for key, value in content.items():
        if isinstance(value, dict) and len(value) <= MAX_FIGURES:
            inner = {f"{key}.{name}": one for name, one in value.items()}
            yield from ({"type": n, "value": str(v)} for n, v in inner.items() if _is_number(v))
        elif _is_number(value):
            yield {"type": key, "value": str(value)}


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def show_path(text: str | None) -> str | None:
    """A path as far as it says nothing of a host or a person."""
    if text is None:
        return None
    path = PureWindowsPath(text)
    away = path.anchor or ".." in path.parts or text.startswith("~") or "://" in text
    return path.name if away else text
