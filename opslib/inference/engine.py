"""The engine: one small seam between measuring and whatever runs the network.

The timing boundary is the same for every engine: `run` takes a float32 array in host memory and
returns the answers in host memory, so that copies to and from a card are counted for both.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from opslib.core.config import Config
from opslib.core.errors import ModelError, UnavailableError
from opslib.inference.postprocess import Postprocess
from opslib.inference.providers import SessionSettings, parse_providers


@dataclass(frozen=True)
class EngineFacts:
    """What is really running: engine, provider or device in force, and the options in effect.

    `input_shape` is `[N, C, H, W]` with None where an axis is dynamic; `note` says why the
    provider is not the first one asked for. `postprocess` turns the answers into probabilities;
    None where only the answers say what does. `scales_by_batch` is dynamic INT8, which scales an
    image by those beside it.
    """

    engine: str
    provider: str
    threads: int
    num_classes: int | None
    input_shape: tuple[int | None, ...]
    input_dtype: str
    options: dict[str, str] = field(default_factory=dict)
    note: str | None = None
    postprocess: Postprocess | None = None
    scales_by_batch: bool = False


class Engine(ABC):
    """A loaded network, ready for batches; a context manager that frees it."""

    facts: EngineFacts

    @abstractmethod
    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the answers, float32 `[N, columns]`, of a float32 `[N, C, H, W]` batch; an
        `UnavailableError` where the library behind it raised."""

    @abstractmethod
    def close(self) -> None:
        """Free the network and its threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class EngineRequest:
    """Everything needed to open an engine (`onnx` or `torch`) in any process; picklable.

    Args:
        providers: short names in order; Torch runs on CUDA where it is asked for and there is one.
        batch_size: one session serves one batch size (plans are rebuilt at every new shape).
        factory: import string of the network for a bare Torch state dict; looked up, as the classes
            that a checkpoint may hold (`safe_globals`), in `code_root` first.
        weights_in_memory: ONNX Runtime gets the bytes of weights files instead of mapping them.
    """

    engine: str
    path: Path
    providers: tuple[str, ...] = ("CPU",)
    batch_size: int = 1
    settings: SessionSettings = field(default_factory=SessionSettings)
    factory: str | None = None
    safe_globals: tuple[str, ...] = ()
    code_root: Path | None = None
    weights_in_memory: bool = False


def session_settings(config: Config, *, threads: int | None = None) -> SessionSettings:
    """Return the configured ONNX Runtime session settings, with `threads` where given."""
    section = config.onnx
    return SessionSettings(
        graph_optimization_level=section.graph_optimization_level,
        execution_mode=section.execution_mode,
        intra_op_num_threads=section.intra_op_num_threads if threads is None else threads,
        inter_op_num_threads=section.inter_op_num_threads,
        allow_spinning=section.allow_spinning,
        cuda=dict(section.cuda),
    )


def requested_providers(config: Config, given: str | None) -> tuple[str, ...]:
    """Return the providers given on a command line, else the configured ones."""
    return parse_providers(given if given is not None else config.onnx.providers)


def not_run(path: Path, batch: NDArray[Any], reason: str) -> UnavailableError:
    """Return the error for a batch over which the library raised: some of its own classes cannot be
    pickled."""
    return UnavailableError(f"{path.name}: batch {len(batch)} does not run: {reason}")


def check_batch(batch: NDArray[Any], facts: EngineFacts) -> None:
    """Refuse a batch whose axes do not fit the network's input."""
    expected = facts.input_shape
    pairs = zip(expected, batch.shape, strict=False)
    if len(expected) != batch.ndim or any(want not in (None, have) for want, have in pairs):
        shown = ["any" if axis is None else axis for axis in expected]
        raise ModelError(f"the model expects input {shown}, got {list(batch.shape)}")
