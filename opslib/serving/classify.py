"""Uploads to answers: decoded, run and ranked on one thread, on one generation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import OpsError
from opslib.inference.causes import find_hint
from opslib.serving.decoding import UploadDecoder
from opslib.serving.failures import RefusalError
from opslib.serving.generations import Generation, Generations
from opslib.serving.logs import CAUSED_OUTSIDE
from opslib.serving.uploads import Upload

_log = logging.getLogger(CAUSED_OUTSIDE)


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
        RefusalError: an upload is no such image, too large or damaged, no model is loaded, the
            preprocessing or the model fails (500, with its stage), or the model's answer is not a
            number.
    """
    with generations.lease() as generation:
        model = generation.model
        started = time.perf_counter()
        with _stage("preprocess", generation):
            batch = decoder.decode(uploads, model.img_size)
        decoded = time.perf_counter()
        with _stage("inference", generation):
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


@contextmanager
def _stage(name: str, generation: Generation) -> Iterator[None]:
    """Name the stage in whatever goes wrong that is not the upload's fault."""
    try:
        yield
    except RefusalError:
        raise
    except Exception as error:  # of foreign code
        told = isinstance(error, OpsError)
        problem = str(error) if told else f"{name} raised {type(error).__name__}; see api.err"
        fields = {"stage": name, **_name_model(generation)}
        _log.error("a request failed: %s", problem, exc_info=not told, extra={"fields": fields})
        extra = {"stage": name, "hint": find_hint(name, problem)}
        raise RefusalError(500, problem, code="stage_failed", extra=extra) from error


def _name_model(generation: Generation) -> dict[str, Any]:
    return {"generation": generation.number, "model_path": str(generation.model.path)}


def _check_finite(probabilities: NDArray[np.float32], generation: Generation) -> None:
    finite = np.isfinite(probabilities)
    if finite.all():
        return
    model, bad = generation.model, int((~finite).any(axis=-1).sum())
    tag = model.candidate.version_tag
    problem = f"{tag} answered {bad} of {len(probabilities)} images with a NaN"
    _log.error("%s; switch to another model", problem, extra={"fields": _name_model(generation)})
    raise RefusalError(500, problem, code="not_a_number")
