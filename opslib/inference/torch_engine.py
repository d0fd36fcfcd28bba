"""Torch behind the engine seam: a checkpoint, TorchScript or exported program, in eval mode."""

import numbers
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ModelError, UnavailableError
from opslib.core.formatting import shorten
from opslib.core.host import usable_cpus
from opslib.inference.checkpoint import read_checkpoint
from opslib.inference.engine import Engine, EngineFacts, EngineRequest, not_run
from opslib.inference.postprocess import count_classes
from opslib.inference.preprocess import import_object

_EXPORTED = ".pt2"
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "model_state", "net", "weights")


class TorchEngine(Engine):
    """A Torch module in eval and inference mode; each call ends with its result on the host."""

    def __init__(self, request: EngineRequest) -> None:
        """Load the checkpoint; a `ModelError` where it is missing or damaged or needs a factory
        that is not configured, an `UnavailableError` where only CUDA was asked for and Torch has
        none."""
        import torch

        self._torch, self._path = torch, request.path
        self._device, note = _choose_device(torch, request.providers)
        torch.set_num_threads(request.settings.intra_op_num_threads or usable_cpus())
        module, facts = _load_module(torch, request)
        self._module = module.to(self._device) if hasattr(module, "to") else module
        if request.path.suffix != _EXPORTED:  # such a program has no other mode
            self._module.eval()
        self.facts = EngineFacts(
            engine="torch",
            provider="CUDA" if self._device.type == "cuda" else "CPU",
            threads=torch.get_num_threads() if self._device.type == "cpu" else usable_cpus(),
            num_classes=count_classes(facts.get("num_classes")),
            input_shape=(None, 3, facts.get("img_size"), facts.get("img_size")),
            input_dtype="float32",
            options={
                "tf32": str(torch.backends.cudnn.allow_tf32).lower(),
                "cudnn_benchmark": str(torch.backends.cudnn.benchmark).lower(),
                "num_threads": str(torch.get_num_threads()),
            },
            note=note,
        )

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the answers, float32 `[N, columns]`; the copy to the host waits for the card."""
        torch = self._torch
        try:
            with torch.inference_mode():
                tensor = torch.from_numpy(batch)
                if self._device.type == "cuda":
                    tensor = tensor.to(self._device, non_blocking=True)
                answer: NDArray[np.float32] = self._module(tensor).float().cpu().numpy()
        except Exception as error:  # a module may raise anything
            raise not_run(self._path, batch, shorten(str(error), 110)) from error
        return answer

    def close(self) -> None:
        """Free the module and, on a card, its memory."""
        self._module = None
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()


def _choose_device(torch: Any, providers: tuple[str, ...]) -> tuple[Any, str | None]:
    if "CUDA" not in providers:
        return torch.device("cpu"), None
    if torch.cuda.is_available():
        return torch.device("cuda"), None
    reason = "CUDA cannot start: this Torch build finds no card"
    if "CPU" not in providers:
        raise UnavailableError(reason)
    return torch.device("cpu"), reason


def _load_module(torch: Any, request: EngineRequest) -> tuple[Any, dict[str, Any]]:
    path = request.path
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected a Torch checkpoint")
    try:
        if path.suffix == _EXPORTED:
            return torch.export.load(str(path)).module(), {}
        if _is_torchscript(path):
            return torch.jit.load(str(path), map_location="cpu"), {}
    except Exception as error:  # Torch raises zip, runtime and OS errors for damaged files
        raise ModelError(f"{path}: Torch cannot load it: {shorten(str(error))}") from error
    payload = read_checkpoint(path, request.safe_globals, request.code_root)
    return _build(torch, path, payload, request)


def _build(
    torch: Any, path: Path, payload: Any, request: EngineRequest
) -> tuple[Any, dict[str, Any]]:
    if isinstance(payload, torch.nn.Module):
        return payload, {}
    if not isinstance(payload, Mapping):
        kind = type(payload).__name__
        raise ModelError(f"{path}: expected a state dict or a checkpoint, got {kind}")
    size = payload.get("img_size")
    facts = {"img_size": int(size) if isinstance(size, numbers.Integral) else None}
    kinds = (Mapping, torch.nn.Module)
    state = next((payload[key] for key in _STATE_KEYS if isinstance(payload.get(key), kinds)), None)
    if isinstance(state, torch.nn.Module):
        return state, facts
    state = payload if state is None else state
    if not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(
            f"{path}: has no weights ({shorten(', '.join(map(str, state)), 100) or 'empty'}); "
            f"expected a state dict, alone or under {', '.join(_STATE_KEYS)}"
        )
    reference = request.factory or payload.get("factory")
    if not isinstance(reference, str):
        raise ModelError(f"{path}: names no factory; set torch.factory to module:function")
    classes = payload.get("num_classes")
    if not isinstance(classes, numbers.Integral) or classes < 1:
        classes = _count_classes(path, state)
    module = _make_network(reference, int(classes), request, path)
    try:
        module.load_state_dict(_fit_names(state, module.state_dict()))
    except Exception as error:  # a module may have a loading of its own
        said = shorten(str(error), 200)
        raise ModelError(f"{path}: its weights do not fit {reference}: {said}") from error
    return module, facts | {"num_classes": int(classes)}


def _make_network(reference: str, classes: int, request: EngineRequest, path: Path) -> Any:
    """What the factory makes; it is foreign code, and whatever it raises is told in one line."""
    import torch

    key = "torch.factory" if request.factory else f"the factory of {path.name}"
    factory = import_object(reference, request.code_root, key=key)
    called = f"{key}: {reference}({classes})"
    try:
        module = factory(classes)
    except Exception as error:
        hint = "it is called with the number of classes alone"
        if re.search(r"cuda|nvidia", str(error), re.IGNORECASE):
            hint += ", and must build on the CPU: let its device be cpu unless told otherwise"
        raised = f"raised {type(error).__name__}: {shorten(str(error))}"
        raise ModelError(f"{called} {raised}; {hint}") from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{called} made a {type(module).__name__}; expected a torch.nn.Module")
    return module


def _fit_names(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights without what a wrapper such as DataParallel or torch.compile put before every
    name, where they fit then; else as they are."""
    peeled = dict(state)
    while set(peeled) != set(wanted):
        heads = {name.partition(".")[0] for name in peeled}
        if len(heads) != 1 or not all("." in name for name in peeled):
            return state
        peeled = {name.partition(".")[2]: value for name, value in peeled.items()}
    return peeled


def _count_classes(path: Path, state: Mapping[str, Any]) -> int:
    named = (tensor for name, tensor in state.items() if name.endswith("bias"))
    biases = [tensor for tensor in named if getattr(tensor, "ndim", 0) == 1]
    if not biases:
        problem = "its state dict has no bias to count classes by; add num_classes to it"
        raise ModelError(f"{path}: {problem}")
    return int(biases[-1].shape[0])


def _is_torchscript(path: Path) -> bool:
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
