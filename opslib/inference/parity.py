"""Parity: two engines must say the same of the same images before either is timed."""

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ModelError
from opslib.core.language import tr
from opslib.core.records import Part
from opslib.core.sections import ParitySection

Probabilities = NDArray[np.float32]


class ParityResult(Part):
    """How far two engines' softmax outputs lie apart, against the limits in force."""

    samples: int
    mse_mean: float
    mse_mean_max: float
    mse_p99: float
    mse_p99_max: float | None
    top1_mismatch_pct: float
    top1_mismatch_max_pct: float
    max_abs_diff: float
    passed: bool
    reason: str


def check_parity(
    reference: Probabilities,
    candidate: Probabilities,
    limits: ParitySection,
    *,
    half_precision: bool = False,
) -> ParityResult:
    """Return how far the probabilities `[N, C]` of two engines lie apart, against the limits; with
    `half_precision` against those for float16 models (no p99 limit)."""
    if reference.shape != candidate.shape:
        raise ModelError(
            f"the checkpoint has {reference.shape[-1]} classes, the ONNX model "
            f"{candidate.shape[-1]}; they are not the same network"
        )
    finite = bool(np.isfinite(reference).all() and np.isfinite(candidate).all())
    errors = ((reference - candidate) ** 2).mean(axis=-1)
    mismatch_pct = 100 * float((reference.argmax(-1) != candidate.argmax(-1)).mean())
    mse_mean_max, mse_p99_max, mismatch_max_pct = (
        (limits.fp16_mse_mean_max, None, limits.fp16_top1_mismatch_max_pct)
        if half_precision
        else (limits.mse_mean_max, limits.mse_p99_max, limits.top1_mismatch_max_pct)
    )
    mse_mean, mse_p99 = float(errors.mean()), float(np.quantile(errors, 0.99))
    broken = []
    if not finite:
        broken.append(tr("an output is not finite"))
    if not mse_mean <= mse_mean_max:
        broken.append(
            tr("mean squared error {mse:.2g} is over {limit:g}", mse=mse_mean, limit=mse_mean_max)
        )
    if mse_p99_max is not None and not mse_p99 <= mse_p99_max:
        broken.append(
            tr("its 99th percentile {mse:.2g} is over {limit:g}", mse=mse_p99, limit=mse_p99_max)
        )
    if mismatch_pct > mismatch_max_pct:
        broken.append(
            tr(
                "the predicted class differs on {pct:.1f} % (at most {limit:g} %)",
                pct=mismatch_pct,
                limit=mismatch_max_pct,
            )
        )
    agreement = tr(
        "same class on {pct:.1f} % of {count} images", pct=100 - mismatch_pct, count=len(reference)
    )
    return ParityResult(
        samples=len(reference),
        mse_mean=mse_mean,
        mse_mean_max=mse_mean_max,
        mse_p99=mse_p99,
        mse_p99_max=mse_p99_max,
        top1_mismatch_pct=mismatch_pct,
        top1_mismatch_max_pct=mismatch_max_pct,
        max_abs_diff=float(np.abs(reference - candidate).max()),
        passed=not broken,
        reason="; ".join(broken) or agreement,
    )
