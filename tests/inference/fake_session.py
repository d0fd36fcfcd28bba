"""A stand-in for `onnxruntime.InferenceSession`, for CUDA paths on hosts without a card.

It answers like a linear model on the mean of each channel and records what was bound and run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FakeBinding:
    """Keeps what was bound; `copy_outputs_to_cpu` answers for the bound input."""

    def __init__(self, session: FakeSession) -> None:
        self._session = session
        self.inputs: dict[str, NDArray[Any]] = {}
        self.outputs: dict[str, str] = {}

    def bind_cpu_input(self, name: str, array: NDArray[Any]) -> None:
        """Bind an input that lies in host memory."""
        self.inputs[name] = array

    def bind_output(self, name: str, device_type: str) -> None:
        """Bind an output to a device, such as `cpu`."""
        self.outputs[name] = device_type

    def copy_outputs_to_cpu(self) -> list[NDArray[Any]]:
        """Return the outputs in host memory."""
        return [self._session.answer(next(iter(self.inputs.values())))]


@dataclass
class FakeSession:
    """A session that runs on `providers` and classifies `[N, 3, H, W]` into `classes`."""

    providers: list[str] = field(default_factory=lambda: ["CUDAExecutionProvider"])
    classes: int = 4
    img_size: int = 8
    input_type: str = "tensor(float)"
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    bound_runs: int = 0

    def get_providers(self) -> list[str]:
        """Return the providers in force."""
        return self.providers

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Return the options in force of each provider."""
        return self.options

    def get_inputs(self) -> list[SimpleNamespace]:
        """Return the one image input."""
        shape = ["N", 3, self.img_size, self.img_size]
        return [SimpleNamespace(name="input", type=self.input_type, shape=shape)]

    def get_outputs(self) -> list[SimpleNamespace]:
        """Return the logits output."""
        return [SimpleNamespace(name="logits", type=self.input_type, shape=["N", self.classes])]

    def io_binding(self) -> FakeBinding:
        """Return an empty binding."""
        return FakeBinding(self)

    def run_with_iobinding(self, binding: FakeBinding) -> None:
        """Count a run through a binding."""
        if not binding.inputs or not binding.outputs:
            raise RuntimeError("inputs and outputs must be bound before a run")
        self.bound_runs += 1

    def run(self, names: list[str] | None, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the logits of the one fed input; only they can be asked for."""
        if names not in (None, ["logits"]):
            raise RuntimeError(f"no output is called {names}")
        return [self.answer(next(iter(feed.values())))]

    def answer(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return logits `[N, classes]` of the batch's own dtype."""
        means = batch.mean(axis=(1, 2, 3), keepdims=False)[:, None]
        answer: NDArray[Any] = (means * np.arange(1, self.classes + 1)).astype(batch.dtype)
        return answer
