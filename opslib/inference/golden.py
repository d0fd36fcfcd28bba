"""Golden images: what the card says of them, the model must still say.

A classifier answers with probabilities; another model with any number of outputs, of any rank, of
floats, integers or booleans. A card keeps those in short: the shape, values taken evenly, the mean
and the largest magnitude.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opslib.core.cards import GoldenAnswer, GoldenOutputs, GoldenTensor, ModelCard
from opslib.core.errors import InputError, ModelError
from opslib.core.files import sha256_file
from opslib.inference.causes import ModelCheckError, Preprocess
from opslib.inference.postprocess import softmax

MAX_PROBABILITY_DIFF = 0.02
KEPT_VALUES = 200
# A value may differ by this share of itself, and by this share of one, or of the output's largest
# magnitude where that is less. The same network differs by 1e-5 between processors, which add
# float32 in another order, and by 1e-3 in half precision; another network differs by tenths. It is
# asked of each value alone, since an output may hold pixels beside probabilities.
MAX_OUTPUT_DIFF = 0.01
_DIGITS = 7

Outputs = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class GoldenResult:
    """How well the golden answers were reproduced: images, largest probability difference."""

    count: int
    max_abs_diff: float


def load_golden(
    card: ModelCard, folder: Path, preprocess: Preprocess, img_size: int
) -> NDArray[np.float32]:
    """Return the card's golden images, found relative to `folder`, as the model's input; refuse
    (stage `golden`) one that is missing, changed or unreadable."""
    for answer in card.golden_images:
        path = folder / answer.image
        if not path.is_file():
            raise ModelCheckError("golden", f"{path}: the golden image is missing")
        if sha256_file(path) != answer.sha256:
            raise ModelCheckError("golden", f"{path}: the golden image has changed")
    paths = [str(folder / answer.image) for answer in card.golden_images]
    try:
        return preprocess(paths, img_size)
    except InputError as error:
        raise ModelCheckError("golden", str(error)) from error


def check_golden(
    path: Path, probabilities: NDArray[np.float32], golden: Sequence[GoldenAnswer]
) -> GoldenResult:
    """Compare the model's probabilities `[N, C]` of the golden images with the card's answers, or
    refuse it (stage `golden`) by the image that is worst.

    Another class is allowed only where the card's own two probabilities are as good as a tie: no
    further apart than twice the allowed difference in parts of the larger. Among many classes all
    of them may be smaller than that difference.
    """
    classes = {len(answer.probabilities) for answer in golden}
    if classes != {probabilities.shape[-1]}:
        promised = f"its card's golden answers have {len(golden[0].probabilities)} classes"
        answers = f"the model answers {probabilities.shape[-1]}"
        raise ModelCheckError("golden", f"{path}: {promised}, {answers}")
    wanted = np.asarray([answer.probabilities for answer in golden], dtype=np.float32)
    for answer, have, want in zip(golden, probabilities, wanted, strict=True):
        said, tie = int(have.argmax()), 2 * MAX_PROBABILITY_DIFF * want[answer.class_id]
        if said != answer.class_id and want[answer.class_id] - want[said] > tie:
            problem = f"{answer.image} is class {said}, its card says {answer.class_id}"
            raise ModelCheckError("golden", f"{path}: {problem}")
    differences = np.abs(probabilities - wanted).max(axis=-1)
    worst = int(differences.argmax())
    if not differences[worst] <= MAX_PROBABILITY_DIFF:
        twice = float(np.abs(softmax(probabilities) - wanted).max()) < 1e-4
        hint = "; its card softmaxed them twice: make it anew" if twice else ""
        raise ModelCheckError(
            "golden",
            f"{path}: {golden[worst].image} differs from its card by {differences[worst]:.3f} "
            f"in a probability (at most {MAX_PROBABILITY_DIFF:g}){hint}",
        )
    return GoldenResult(len(golden), float(differences.max()))


def answer_golden(
    images: tuple[GoldenAnswer, ...], probabilities: NDArray[np.float32]
) -> tuple[GoldenAnswer, ...]:
    """Return the golden images with the answers that `probabilities` `[N, C]` give to them, as many
    as there are images."""
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


def summarise_outputs(outputs: Outputs) -> tuple[GoldenTensor, ...]:
    """Return the outputs of one image as a card keeps them."""
    return tuple(_summarise(name, values) for name, values in outputs.items())


def check_golden_outputs(
    path: Path, golden: Sequence[GoldenOutputs], answers: Sequence[Outputs]
) -> GoldenResult:
    """Compare what the model at `path` answered to each golden image with what its card says, or
    refuse it (stage `golden`) by image and output.

    The difference in the result is that of the value that lies farthest off, as a share of what
    `MAX_OUTPUT_DIFF` is a share of.
    """
    worst = 0.0
    for promised, answer in zip(golden, answers, strict=True):
        found = {one.name: one for one in summarise_outputs(answer)}
        for wanted in promised.outputs:
            problem, difference = _compare(wanted, found.get(wanted.name))
            if problem is not None:
                where = f"{path}: {promised.image}: output {wanted.name!r}"
                raise ModelCheckError("golden", f"{where}: {problem}")
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
