"""Softmax: from logits to probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return softmax over the last axis, `[N, C]`, in float32."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    answer: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return answer
