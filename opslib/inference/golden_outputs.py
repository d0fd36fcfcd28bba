"""Golden outputs: what the card of a model that is no classifier says of its golden images.

Any number of outputs, of any rank, of floats, integers or booleans. A card keeps them in short:
the shape, values taken evenly, the mean and the largest magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opslib.core.cards import GoldenOutputs, GoldenTensor
from opslib.inference.golden import GoldenResult
from opslib.inference.stages import ModelCheckError

KEPT_VALUES = 200
# A value may differ by this share of itself, and by this share of one, or of the output's largest
# magnitude where that is less. The same network differs by 1e-5 between processors, which add
# float32 in another order, and by 1e-3 in half precision; another network differs by tenths. It is
# asked of each value alone, since an output may hold pixels beside probabilities.
MAX_OUTPUT_DIFF = 0.01
_DIGITS = 7

Outputs = Mapping[str, NDArray[np.generic]]


def summarise_outputs(outputs: Outputs) -> tuple[GoldenTensor, ...]:
    """Return the outputs of one image as a card keeps them."""
    return tuple(_summarise(name, values) for name, values in outputs.items())


def find_not_finite(outputs: Outputs) -> str | None:
    """Return the name of an output that holds a NaN or an infinity, or None."""
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            return name
    return None


def check_golden_outputs(
    path: Path, golden: Sequence[GoldenOutputs], answers: Sequence[Outputs]
) -> GoldenResult:
    """Compare what the model at `path` answered to each golden image with what its card says.

    The difference in the result is that of the value that lies farthest off, as a share of what
    `MAX_OUTPUT_DIFF` is a share of.

    Raises:
        ModelCheckError: stage `golden`; the message names the image and the output.
    """
    worst = 0.0
    for promised, answer in zip(golden, answers, strict=True):
        found = {one.name: one for one in summarise_outputs(answer)}
        for wanted in promised.outputs:
            problem, difference = _compare(wanted, found.get(wanted.name))
            if problem is not None:
                raise ModelCheckError(
                    "golden", f"{path}: {promised.image}: output {wanted.name!r}: {problem}"
                )
            worst = max(worst, difference)
    return GoldenResult(len(golden), worst)


def _summarise(name: str, values: NDArray[np.generic]) -> GoldenTensor:
    flat = np.asarray(values, dtype=np.float64).ravel()
    at = np.unique(np.linspace(0, max(0, flat.size - 1), min(flat.size, KEPT_VALUES)).astype(int))
    return GoldenTensor(
        name=name,
        dtype=str(values.dtype),
        shape=values.shape,
        values=tuple(_shorten(value) for value in flat[at]),
        mean=_shorten(flat.mean()) if flat.size else 0.0,
        max_abs=_shorten(np.abs(flat).max()) if flat.size else 0.0,
    )


def _shorten(value: float) -> float:
    """The value with as many digits as float32 has."""
    return float(f"{value:.{_DIGITS}g}")


def _compare(wanted: GoldenTensor, found: GoldenTensor | None) -> tuple[str | None, float]:
    """What is wrong with an output, or None; and how far its worst value lies off."""
    if found is None:
        return "the model has none of this name", 0.0
    if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
        return f"{_describe(found)}, its card says {_describe(wanted)}", 0.0
    want = np.array([*wanted.values, wanted.mean, wanted.max_abs])
    have = np.array([*found.values, found.mean, found.max_abs])
    difference = np.abs(have - want)
    if not difference.any():
        return None, 0.0
    exact = np.dtype(wanted.dtype).kind != "f"  # a class or a count is right or wrong
    allowed = np.zeros_like(want) if exact else np.abs(want) + min(1.0, wanted.max_abs)
    shares = difference / np.maximum(allowed, np.finfo(np.float64).tiny)
    worst = int(shares.argmax())
    if shares[worst] > MAX_OUTPUT_DIFF:
        what = (*("a value" for _ in wanted.values), "the mean", "the largest magnitude")[worst]
        return f"{what} is {have[worst]:.6g}, its card says {want[worst]:.6g}", 0.0
    return None, float(shares[worst])


def _describe(tensor: GoldenTensor) -> str:
    return f"{tensor.dtype} [{'x'.join(map(str, tensor.shape))}]"
