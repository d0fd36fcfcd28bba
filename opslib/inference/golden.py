"""Golden images: what the card says of them, the model must still say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from opslib.core.cards import GoldenAnswer, ModelCard
from opslib.core.errors import InputError, ModelError
from opslib.core.files import sha256_file
from opslib.inference.postprocess import softmax
from opslib.inference.stages import ModelCheckError

if TYPE_CHECKING:
    from opslib.inference.stages import Preprocess

MAX_PROBABILITY_DIFF = 0.02


@dataclass(frozen=True)
class GoldenSet:
    """Golden images as the model's input, float32 `[N, 3, H, W]`, and the answers expected of a
    classifier."""

    images: NDArray[np.float32]
    answers: tuple[GoldenAnswer, ...]


@dataclass(frozen=True)
class GoldenResult:
    """How well the golden answers were reproduced: images, largest probability difference."""

    count: int
    max_abs_diff: float


def load_golden(card: ModelCard, folder: Path, preprocess: Preprocess, img_size: int) -> GoldenSet:
    """Return the card's golden images, found relative to `folder`.

    Raises:
        ModelCheckError: stage `golden`: an image is missing, changed or unreadable.
    """
    paths = []
    for answer in card.golden_images:
        path = folder / answer.image
        if not path.is_file():
            raise ModelCheckError("golden", f"{path}: the golden image is missing")
        if sha256_file(path) != answer.sha256:
            raise ModelCheckError("golden", f"{path}: the golden image has changed")
        paths.append(str(path))
    try:
        return GoldenSet(preprocess(paths, img_size), card.golden)
    except InputError as error:
        raise ModelCheckError("golden", str(error)) from error


def check_golden(
    path: Path,
    probabilities: NDArray[np.float32],
    golden: GoldenSet,
    *,
    max_probability_diff: float = MAX_PROBABILITY_DIFF,
) -> GoldenResult:
    """Compare the model's probabilities `[N, C]` of the golden images with the card's answers.

    Another class is allowed only where the card's own two probabilities are as good as a tie: no
    further apart than twice the allowed difference in parts of the larger. Among many classes all
    of them may be smaller than that difference.

    Raises:
        ModelCheckError: stage `golden`; the message names the image that is worst.
    """
    expected = [answer.probabilities for answer in golden.answers]
    if any(len(row) != probabilities.shape[-1] for row in expected):
        raise ModelCheckError(
            "golden",
            f"{path}: its card's golden answers have {len(expected[0])} classes, "
            f"the model answers {probabilities.shape[-1]}",
        )
    wanted = np.asarray(expected, dtype=np.float32)
    differences = np.abs(probabilities - wanted).max(axis=-1)
    for index, answer in enumerate(golden.answers):
        said = int(probabilities[index].argmax())
        gap = wanted[index, answer.class_id] - wanted[index, said]
        tie = 2 * max_probability_diff * wanted[index, answer.class_id]
        if said != answer.class_id and gap > tie:
            raise ModelCheckError(
                "golden",
                f"{path}: {answer.image} is class {said}, its card says {answer.class_id}",
            )
    worst = int(differences.argmax())
    if not differences[worst] <= max_probability_diff:
        twice = float(np.abs(softmax(probabilities) - wanted).max()) < 1e-4
        hint = "; its card softmaxed them twice: make it anew" if twice else ""
        raise ModelCheckError(
            "golden",
            f"{path}: {golden.answers[worst].image} differs from its card by "
            f"{differences[worst]:.3f} in a probability (at most {max_probability_diff:g}){hint}",
        )
    return GoldenResult(len(golden.answers), float(differences.max()))


def answer_golden(
    images: tuple[GoldenAnswer, ...], probabilities: NDArray[np.float32]
) -> tuple[GoldenAnswer, ...]:
    """Return the golden images with the answers that `probabilities` `[N, C]` give to them.

    Raises:
        ModelError: the numbers of images and answers differ.
    """
    if len(images) != len(probabilities):
        raise ModelError(f"{len(images)} golden images, {len(probabilities)} answers")
    return tuple(
        GoldenAnswer(
            image=one.image,
            sha256=one.sha256,
            class_id=int(row.argmax()),
            probabilities=tuple(round(float(value), 7) for value in row),
        )
        for one, row in zip(images, probabilities, strict=True)
    )
