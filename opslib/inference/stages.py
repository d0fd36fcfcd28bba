"""The stages of a model check and the error that names the one that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from opslib.core.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Stage = Literal["files", "load", "contract", "outputs", "golden"]
Preprocess = Callable[[Sequence[str], int], "NDArray[np.float32]"]


class ModelCheckError(ModelError):
    """A model failed a check; `stage` says which."""

    def __init__(self, stage: Stage, message: str) -> None:
        super().__init__(message)
        self.stage: Stage = stage

    def __reduce__(self) -> tuple[type[ModelCheckError], tuple[Stage, str]]:
        return (type(self), (self.stage, str(self)))
