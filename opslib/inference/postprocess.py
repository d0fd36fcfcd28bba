"""From what a classifier answers to probabilities: what is still to be done, found out and done.

Most exports end in logits; some have the softmax or the sigmoid inside, and a second one would pull
every confidence towards the middle and hide any difference between two models. The last operator of
the graph tells; where it is none that is known (a function, a division, a Torch module), the
answers do: rows that are nowhere negative and sum to 1 are probabilities.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from opslib.inference.signature import peek, read_last_operator

# What is still to be applied; `none`: the answers are probabilities already.
Postprocess = Literal["softmax", "sigmoid", "none"]
SAYS: dict[Postprocess, str] = {
    "softmax": "logits",
    "sigmoid": "one column of logits",
    "none": "probabilities",
}
_SUM_TOLERANCE = 5e-3  # float16 and 8-bit outputs
_ACTIVATIONS = frozenset(
    {"Softmax", "BiasSoftmax", "QLinearSoftmax", "Sigmoid", "HardSigmoid", "QLinearSigmoid"}
)
_LINEAR = frozenset(
    {"Conv", "ConvInteger", "DynamicQuantizeMatMul", "FusedConv", "FusedGemm", "FusedMatMul"}
    | {"Gemm", "LogSoftmax", "MatMul", "MatMulInteger", "MatMulIntegerToFloat"}
    | {"QGemm", "QLinearConv", "QLinearMatMul"}
)


def find_postprocess(path: Path) -> Postprocess | None:
    """Return what the graph of an ONNX file leaves to be done, or None where only its answers can
    say so or it cannot be read."""
    last = peek(read_last_operator, path)
    if last is None:
        return None
    if last.kind in _ACTIVATIONS:
        return "none"
    # A bias or a scale behind a layer; a sum of probabilities is judged by its values.
    combined = bool(last.behind & _LINEAR) and not last.behind & _ACTIVATIONS
    if last.kind not in _LINEAR and not combined:
        return None
    return "sigmoid" if last.columns == 1 else "softmax"


def judge_answers(answers: NDArray[np.float32]) -> Postprocess:
    """Return what answers `[N, columns]` leave to be done, by their values alone."""
    inside = bool(((answers >= 0) & (answers <= 1 + _SUM_TOLERANCE)).all())
    if answers.shape[-1] == 1:
        return "none" if inside else "sigmoid"
    sums = answers.sum(axis=-1, dtype=np.float64)
    return "none" if inside and (np.abs(sums - 1) <= _SUM_TOLERANCE).all() else "softmax"


def to_probabilities(
    answers: NDArray[np.float32], postprocess: Postprocess | None
) -> NDArray[np.float32]:
    """Return probabilities `[N, classes]`, float32, of answers `[N, columns]`; with no
    `postprocess` these answers themselves say what is to be done.

    One column is the probability of the second of two classes. A sigmoid for each class leaves rows
    that need not sum to 1.
    """
    to_do = postprocess or judge_answers(answers)
    if answers.shape[-1] == 1:
        second = answers if to_do == "none" else _sigmoid(answers)
        return np.concatenate([1 - second, second], axis=-1)
    return softmax(answers) if to_do == "softmax" else answers


def count_classes(columns: int | None) -> int | None:
    """Return how many classes so many output columns tell apart: one column tells two."""
    return 2 if columns == 1 else columns


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return softmax over the last axis, `[N, C]`, in float32."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    answer: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return answer


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) in a form that cannot overflow."""
    answer: NDArray[np.float32] = (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)
    return answer
