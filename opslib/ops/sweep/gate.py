"""A faster answer must be the same answer: every candidate against the model as it was written."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from opslib.core.sections import ParitySection
from opslib.inference.parity import check_parity

MAX_DIFF = {"float32": 1e-3, "tf32": 1e-2, "float16": 5e-2}
Arithmetic = str


def arithmetic_of(input_dtype: str, *, tf32: bool) -> Arithmetic:
    """Return which arithmetic decides the tolerance: `float16`, `tf32` or `float32`."""
    if input_dtype == "float16":
        return "float16"
    return "tf32" if tf32 else "float32"


def check_candidate(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    limits: ParitySection,
    arithmetic: Arithmetic,
) -> tuple[float, str | None]:
    """Return the largest difference of two models' probabilities and why it is too large, or None.

    Beside the export's limits, no probability may move by more than 1e-3. TF32 keeps 10 of 23
    mantissa bits of each factor, so ten times that is allowed there, and float16 fifty times.
    """
    result = check_parity(reference, candidate, limits, half_precision=arithmetic == "float16")
    difference = float(np.abs(reference - candidate).max())
    if not result.passed:
        return difference, result.reason
    allowed = MAX_DIFF[arithmetic]
    if difference > allowed:
        return difference, f"a probability moved by {difference:.2g}, {allowed:g} is allowed"
    return difference, None
