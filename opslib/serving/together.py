"""What a worker does with its share of the line: each request is decoded by itself, and those that
are ready are answered in one run of one generation."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import OpsError
from opslib.inference.causes import find_hint
from opslib.serving.decoding import Opened, UploadDecoder
from opslib.serving.failures import RefusalError
from opslib.serving.generations import Generation, Generations
from opslib.serving.logs import CAUSED_OUTSIDE
from opslib.serving.reload import since_ms
from opslib.serving.uploads import Upload

T = TypeVar("T")
Uploads = Sequence[Upload]
# Of all requests of one run: nobody waits long for what others sent to be decoded, and where it is
# decoding that takes the time, a common run would save little.
TOGETHER_PIXELS = 4_000_000

_log = logging.getLogger(CAUSED_OUTSIDE)


@dataclass(frozen=True)
class Classified:
    """The predictions of one request (fields of `Prediction`), their one generation, and times;
    `inference_ms` is that of the whole run, whoever else was in it."""

    generation: Generation
    predictions: list[dict[str, Any]]
    preprocess_ms: float
    inference_ms: float


@dataclass(frozen=True)
class _Ready:
    """A decoded request, and how long that took."""

    batch: NDArray[np.float32]
    preprocess_ms: float


Outcomes = list[Classified | BaseException]


def classify(
    requests: Iterator[Uploads], *, generations: Generations, decoder: UploadDecoder
) -> Iterator[Outcomes]:
    """Yield the answers to requests, or their errors, in order; those of one run at a time.

    A run is of the generation current when it begins, and takes requests while there are any and
    they fit; the first one that does not begins the next. Where that was found to be slower, it
    takes no other (see `pace`). Each gets what it would have got alone: a `RefusalError` where
    there is no model, an upload is unfit, or a stage failed (500, with its name).
    """
    first = next(requests, None)
    while first is not None:
        left = None
        try:
            with generations.lease() as generation:
                run = _Run(generation, decoder)
                run.add(first)
                left = _fill(run, requests, generations)
                outcomes = run.finish()
                if run.alone:
                    left = next(requests, None)
                run.note_pace(others_wait=left is not None)
        except RefusalError as error:  # there is no model
            outcomes = [error]
        yield outcomes
        first = left


def _fill(run: "_Run", requests: Iterator[Uploads], generations: Generations) -> Uploads | None:
    """Add requests to a run that has room; return one that was taken and does not fit."""
    while run.has_room and (uploads := next(requests, None)) is not None:
        # Who asks after a switch must not be answered by the model before it.
        if generations.current is not run.generation or not run.add(uploads):
            return uploads
    return None


class _Run:
    """One run of one generation: requests decoded one by one, then answered together."""

    def __init__(self, generation: Generation, decoder: UploadDecoder) -> None:
        self.generation = generation
        self._decoder = decoder
        self.alone = not generation.model.pace.together
        self._most = 1 if self.alone else generation.model.together
        self._parts: list[_Ready | BaseException] = []
        self._images = self._pixels = 0
        self._started = time.perf_counter()

    @property
    def has_room(self) -> bool:
        """Whether another request may be added."""
        return self._images < self._most and self._pixels < TOGETHER_PIXELS

    def add(self, uploads: Uploads) -> bool:
        """Decode a request, or keep its error; False where it does not fit beside the others."""
        others = bool(self._parts)
        if others and self._images + len(uploads) > self._most:
            return False
        started = time.perf_counter()
        opened = _attempt(partial(_open, self._decoder, uploads, self.generation))
        if isinstance(opened, BaseException):
            self._parts.append(opened)
        elif others and self._pixels + opened.pixels > TOGETHER_PIXELS:
            return False
        else:
            self._pixels += opened.pixels
            decode = partial(_decode, self._decoder, opened, self.generation, started)
            self._parts.append(_attempt(decode))
        self._images += len(uploads)
        return True

    def finish(self) -> Outcomes:
        """Return the answers to all, or their errors, in the order in which they were added."""
        ready = [one for one in self._parts if isinstance(one, _Ready)]
        together = self._infer_together(ready) if len(ready) > 1 else None
        alone = (_attempt(partial(_infer_alone, one, self.generation)) for one in ready)
        answers = iter(together or alone)
        return [next(answers) if isinstance(one, _Ready) else one for one in self._parts]

    def note_pace(self, *, others_wait: bool) -> None:
        """Keep how long an image took; alone for want of others tells nothing."""
        together = len(self._parts) > 1
        if together or (self.alone and others_wait):
            image_ms = since_ms(self._started) / self._images
            self.generation.model.pace.note(image_ms, together=together)

    def _infer_together(self, ready: Sequence[_Ready]) -> Outcomes | None:
        """The answers of a common run, or None where each has to be asked by itself: the run
        failed, or something in it is no number, which may be one request's fault alone."""
        generation, started = self.generation, time.perf_counter()
        batches = [one.batch for one in ready]
        found = _attempt(lambda: generation.model.run(np.concatenate(batches)))
        if isinstance(found, BaseException):
            problem = "a run of %d requests failed, each is run by itself: %s"
            fields = _name_model(generation)
            _log.warning(problem, len(ready), found, extra={"fields": fields})
            return None
        counts = [len(one) for one in batches]
        if len(found) != sum(counts) or not np.isfinite(found).all():
            return None
        inference_ms, parts = since_ms(started), np.split(found, np.cumsum(counts)[:-1])
        return [
            _make_answer(generation, one, part, inference_ms)
            for one, part in zip(ready, parts, strict=True)
        ]


def _open(decoder: UploadDecoder, uploads: Uploads, generation: Generation) -> Opened:
    with _stage("preprocess", generation):
        return decoder.open(uploads)


def _decode(
    decoder: UploadDecoder, opened: Opened, generation: Generation, started: float
) -> _Ready:
    with _stage("preprocess", generation):
        batch = decoder.decode(opened, generation.model.img_size)
    return _Ready(batch, since_ms(started))


def _infer_alone(one: _Ready, generation: Generation) -> Classified:
    started = time.perf_counter()
    with _stage("inference", generation):
        probabilities = generation.model.run(one.batch)
    _check_finite(probabilities, generation)
    return _make_answer(generation, one, probabilities, since_ms(started))


def _make_answer(
    generation: Generation, one: _Ready, probabilities: NDArray[np.float32], inference_ms: float
) -> Classified:
    names = generation.model.class_names
    best = probabilities.argmax(axis=-1).tolist()
    predictions = [
        {
            "class_id": index,
            "class_name": names[index] if index < len(names) else None,
            "confidence": round(float(row[index]), 6),
        }
        for index, row in zip(best, probabilities, strict=True)
    ]
    return Classified(generation, predictions, one.preprocess_ms, inference_ms)


def _attempt(do: Callable[[], T]) -> T | BaseException:
    """Return what `do` returns, or what it raises: one request's error is no other's."""
    try:
        return do()
    except RefusalError as error:
        # What is worth knowing of it is logged; its frames would keep all that the run holds.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    except BaseException as error:
        return error


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
