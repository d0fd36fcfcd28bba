"""Uploads to answers: decoded, run and ranked on one thread, on one generation."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.serving.decoding import UploadDecoder
from opslib.serving.failures import RefusalError
from opslib.serving.generations import Generation, Generations
from opslib.serving.logs import EVENT_LOGGER
from opslib.serving.rarely import Rarely
from opslib.serving.uploads import Upload

_log = logging.getLogger(f"{EVENT_LOGGER}.classify")
_log.addFilter(Rarely())


@dataclass(frozen=True)
class Classified:
    """The predictions of one request (fields of `Prediction`), their one generation, and times."""

    generation: Generation
    predictions: list[dict[str, Any]]
    preprocess_ms: float
    inference_ms: float


def classify(
    uploads: Sequence[Upload], generations: Generations, decoder: UploadDecoder
) -> Classified:
    """Return a prediction for each upload, all from the generation current when work began.

    Raises:
        RefusalError: an upload is no such image, too large or damaged, no model is loaded, or the
            model's answer is not a number.
    """
    with generations.lease() as generation:
        model = generation.model
        started = time.perf_counter()
        batch = decoder.decode(uploads, model.img_size)
        decoded = time.perf_counter()
        probabilities = model.run(batch)
        _check_finite(probabilities, generation)
        finished = time.perf_counter()
        names = model.class_names
        best = probabilities.argmax(axis=-1).tolist()
        predictions = [
            {
                "class_id": index,
                "class_name": names[index] if index < len(names) else None,
                "confidence": round(float(row[index]), 6),
            }
            for index, row in zip(best, probabilities, strict=True)
        ]
    return Classified(
        generation,
        predictions,
        round((decoded - started) * 1000, 3),
        round((finished - decoded) * 1000, 3),
    )


def _check_finite(probabilities: NDArray[np.float32], generation: Generation) -> None:
    finite = np.isfinite(probabilities)
    if finite.all():
        return
    model, bad = generation.model, int((~finite).any(axis=-1).sum())
    tag = model.candidate.version_tag
    problem = f"{tag} answered {bad} of {len(probabilities)} images with a NaN"
    fields = {"generation": generation.number, "model_path": str(model.path)}
    _log.error("%s; switch to another model", problem, extra={"fields": fields})
    raise RefusalError(500, problem, code="not_a_number")
