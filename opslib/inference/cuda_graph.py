"""Replaying a captured CUDA graph: input and output keep their addresses on the card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ModelError

MakeValue = Callable[[NDArray[Any]], Any]


class CudaGraphBinding:
    """One session's input and output on the card, made at the first run and reused after it.

    A captured graph replays fixed addresses, so every later batch is copied into the same place
    and must have the first one's shape. The copies count, as they do without a graph.
    """

    def __init__(
        self, session: Any, names: tuple[str, str], make_value: MakeValue | None = None
    ) -> None:
        self._session = session
        self._input_name, self._output_name = names
        self._make_value = make_value or _value_on_card
        self._binding: Any = None
        self._input: Any = None
        self._output: Any = None
        self._shape: tuple[int, ...] = ()

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return the output in host memory for a batch in host memory."""
        if self._binding is None:
            self._capture(batch)
        if batch.shape != self._shape:
            raise ModelError(
                f"a captured CUDA graph serves one shape, {list(self._shape)}, "
                f"got {list(batch.shape)}"
            )
        self._input.update_inplace(np.ascontiguousarray(batch))
        self._session.run_with_iobinding(self._binding)
        answer: NDArray[Any] = self._output.numpy()
        return answer

    def _capture(self, batch: NDArray[Any]) -> None:
        binding = self._session.io_binding()
        self._input = self._make_value(np.ascontiguousarray(batch))
        binding.bind_ortvalue_input(self._input_name, self._input)
        shape = [batch.shape[0], int(self._session.get_outputs()[0].shape[-1])]
        self._output = self._make_value(np.zeros(shape, dtype=batch.dtype))
        binding.bind_ortvalue_output(self._output_name, self._output)
        self._binding, self._shape = binding, batch.shape


def _value_on_card(array: NDArray[Any]) -> Any:
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
