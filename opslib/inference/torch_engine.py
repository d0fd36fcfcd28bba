"""Torch behind the engine seam: a checkpoint, TorchScript or exported program, in eval mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ModelError, UnavailableError
from opslib.core.host import usable_cpus
from opslib.inference.engine import ClosedOnExit, EngineFacts, EngineRequest
from opslib.inference.preprocess import import_object

_STATE_KEYS = ("state_dict", "model_state_dict", "model")


class TorchEngine(ClosedOnExit):
    """A Torch module in eval and inference mode; each call ends with its result on the host."""

    def __init__(self, request: EngineRequest) -> None:
        """Load the checkpoint.

        Raises:
            ModelError: missing, damaged, or it needs a factory that is not configured.
            UnavailableError: only CUDA was asked for and Torch has none here.
        """
        import torch

        self._torch = torch
        self._device, note = _choose_device(torch, request.providers)
        if request.settings.intra_op_num_threads:
            torch.set_num_threads(request.settings.intra_op_num_threads)
        self._module, facts = _load_module(torch, request)
        self._module = (
            self._module.to(self._device) if hasattr(self._module, "to") else self._module
        )
        if facts.get("mode_settable", True):
            self._module.eval()
        self.facts = EngineFacts(
            engine="torch",
            provider="CUDA" if self._device.type == "cuda" else "CPU",
            threads=torch.get_num_threads() if self._device.type == "cpu" else usable_cpus(),
            num_classes=facts.get("num_classes"),
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
        """Return logits float32 `[N, classes]`; the copy to the host waits for the card."""
        torch = self._torch
        with torch.inference_mode():
            tensor = torch.from_numpy(batch)
            if self._device.type == "cuda":
                tensor = tensor.to(self._device, non_blocking=True)
            answer: NDArray[np.float32] = self._module(tensor).float().cpu().numpy()
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
        if path.suffix == ".pt2":
            return torch.export.load(str(path)).module(), {"mode_settable": False}
        if _is_torchscript(path):
            return torch.jit.load(str(path), map_location="cpu"), {}
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Torch raises pickle, zip, runtime and OS errors for damaged files
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: Torch cannot load it: {reason}") from error
    return _build(path, payload, request)


def _build(path: Path, payload: Any, request: EngineRequest) -> tuple[Any, dict[str, Any]]:
    if not isinstance(payload, Mapping):
        raise ModelError(
            f"{path}: expected a state dict or a checkpoint, got {type(payload).__name__}"
        )
    state = next((payload[key] for key in _STATE_KEYS if key in payload), payload)
    reference = request.factory or payload.get("factory")
    if not isinstance(reference, str):
        raise ModelError(f"{path}: names no factory; set torch.factory to module:function")
    classes = payload.get("num_classes") or _count_classes(state)
    factory = import_object(reference, request.code_root, key="torch.factory")
    module = factory(classes)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: its weights do not fit {reference}: {reason}") from error
    return module, {"num_classes": classes, "img_size": payload.get("img_size")}


def _count_classes(state: Mapping[str, Any]) -> int:
    last_bias = [tensor for name, tensor in state.items() if name.endswith("bias")]
    if not last_bias:
        raise ModelError("the state dict has no bias to count classes by; add num_classes to it")
    return int(last_bias[-1].shape[0])


def _is_torchscript(path: Path) -> bool:
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
