"""The contract of a model: what it takes, what it answers, and that its answers mean something."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from opslib.core.cards import ModelCard
from opslib.inference.causes import ModelCheckError
from opslib.inference.postprocess import SAYS, Postprocess, count_classes
from opslib.inference.signature import TensorSummary, peek, read_last_operator, read_signature
from opslib.inference.trial import TensorFacts, TrialResult

FLOATS = ("float32", "float16", "float64")
DEFAULT_PROBE_PX = 224
PROBES = 4
MIN_SPREAD = 1e-6
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Contract:
    """What a model must keep to: number of classes, input shape (None: free), class names.

    `input_dtype` is None where any float will do, `postprocess` where whoever asks the model finds
    out itself whether its answers are probabilities.
    """

    num_classes: int | None
    input_shape: tuple[int | None, ...]
    class_names: tuple[str, ...] = ()
    input_dtype: str | None = None
    postprocess: Postprocess | None = None

    @classmethod
    def from_card(cls, card: ModelCard) -> Self:
        """Return what a card promises."""
        shape = tuple(axis if isinstance(axis, int) else None for axis in card.input_shape)
        return cls(card.num_classes, shape, card.class_names)

    @classmethod
    def from_trial(cls, trial: TrialResult, class_names: tuple[str, ...] = ()) -> Self:
        """Return what a loaded model keeps to."""
        first = trial.inputs[0]
        return cls(trial.num_classes, first.shape, class_names, first.dtype, trial.postprocess)


def check_contract(path: Path, trial: TrialResult, expected: Contract | None) -> None:
    """Refuse (stage `contract`) a model that is no image classifier, or not the one expected."""
    problem = (
        _find_shape_problem(trial)
        or _find_order_problem(path)
        or (expected and _find_difference(trial, expected))
    )
    if problem:
        raise ModelCheckError("contract", f"{path}: {problem}")


def check_input(path: Path, size: int) -> None:
    """Refuse (stage `contract`) a classifier by what its file says of its input, before anything is
    run; it shall get images of `size` pixels a side."""
    found = peek(read_signature, path)
    inputs = found.inputs if found else ()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        return
    name, dtype, shape = inputs[0].name, inputs[0].dtype, inputs[0].shape
    sides = {axis for axis in shape[2:] if isinstance(axis, int) and axis > 0}
    if shape[3] in _CHANNELS and shape[1] not in _CHANNELS:
        problem = "channels last; expected channels first, float32 [N, 3, H, W]"
    elif dtype not in FLOATS:
        problem = "expected floats, as the preprocessing gives them"
    elif isinstance(shape[1], int) and shape[1] != 3:
        problem = "the images have 3 channels"
    elif len(sides) > 1:
        problem = "expected a square one"
    elif sides and sides != {size}:
        problem = f"the images have {size} pixels a side"
    else:
        return
    what = f"its input {name!r} is {dtype} [{_shape(shape)}]"
    raise ModelCheckError("contract", f"{path}: {what}: {problem}")


def check_outputs(path: Path, answers: NDArray[np.float32], *, differing: int) -> None:
    """Refuse (stage `outputs`) answers `[N, classes]` that are not finite, or the same to
    differing images, as the last `differing` ones surely are."""
    bad = int((~np.isfinite(answers)).any(axis=-1).sum())
    probes = answers[-differing:] if differing else answers
    if bad:
        problem = f"{bad} of {len(answers)} answers hold a NaN or an infinity"
    elif len(probes) > 1 and float(np.ptp(probes, axis=0).max()) < MIN_SPREAD:
        problem = f"answers the same to {len(probes)} differing images"
    else:
        return
    raise ModelCheckError("outputs", f"{path}: {problem}")


def check_classes_kept(path: Path, card: ModelCard | None, previous: Contract) -> None:
    """Refuse (stage `contract`) a model with other class names, or in another order."""
    names, before = card.class_names if card is not None else (), previous.class_names
    if not names or not before or names == before:
        return
    if len(names) != len(before):
        problem = f"it has {len(names)} class names, expected {len(before)}"
    else:
        index = next(i for i, name in enumerate(names) if name != before[i])
        problem = f"class {index} is {names[index]!r}, expected {before[index]!r}"
    raise ModelCheckError("contract", f"{path}: {problem}")


def probe_images(img_size: int) -> NDArray[np.float32]:
    """Return differing inputs, float32 `[4, 3, img_size, img_size]`: flat, ramp, waves, noise."""
    ramp = np.linspace(-2, 2, img_size, dtype=np.float32)
    rng = np.random.default_rng(0)
    images = np.zeros((PROBES, 3, img_size, img_size), dtype=np.float32)
    images[1] = ramp[None, :] + np.arange(3, dtype=np.float32)[:, None, None] - 1
    images[2] = 2 * np.sin(8 * ramp)[None, :, None]
    images[3] = rng.normal(size=images[3].shape)
    return images


def resolve_img_size(
    configured: int | None, promised: ModelCard | Contract | None, own: int | None
) -> int | None:
    """Return the input pixels of a model: what is configured, else what its card (or the contract
    that it has to keep to) says, else its own; None where nothing says them."""
    width = promised.input_shape[-1] if promised and promised.input_shape else None
    return configured or (width if isinstance(width, int) else None) or own


def find_img_size(
    path: Path, promised: ModelCard | Contract | None, configured: int | None
) -> int | None:
    """Return the input pixels of the ONNX model at `path`; see `resolve_img_size`."""
    return resolve_img_size(configured, promised, read_input_size(path))


def probe_size(path: Path, promised: ModelCard | Contract | None, img_size: int | None) -> int:
    """Return the input pixels to probe the model at `path` with."""
    return find_img_size(path, promised, img_size) or DEFAULT_PROBE_PX


def read_input_size(path: Path) -> int | None:
    """Return the width of an ONNX file's first input, or None where it is free or unreadable."""
    found = peek(read_signature, path)
    return _last_axis(found.inputs) if found else None


def read_num_classes(path: Path) -> int | None:
    """Return how many classes an ONNX file's first output has, or None where it does not say."""
    found = peek(read_signature, path)
    return count_classes(_last_axis(found.outputs)) if found else None


def _last_axis(tensors: Sequence[TensorSummary]) -> int | None:
    last = tensors[0].shape[-1] if tensors and tensors[0].shape else None
    return last or None if isinstance(last, int) else None


def _find_shape_problem(trial: TrialResult) -> str | None:
    if len(trial.inputs) != 1 or trial.inputs[0].dtype not in FLOATS:
        return f"expected one image input of floats, the model has {describe_tensors(trial.inputs)}"
    if len(trial.inputs[0].shape) != 4:
        return f"expected an input [N, C, H, W], the model has {describe_tensors(trial.inputs)}"
    if not trial.outputs:
        return "the model has no output"
    shape = trial.answers.shape if trial.answers is not None else trial.outputs[0].shape
    if len(shape) != 2 or trial.outputs[0].dtype not in FLOATS:
        return f"expected an output [N, classes], the model has {describe_tensors(trial.outputs)}"
    return None


def _find_order_problem(path: Path) -> str | None:
    """Why the columns of the answers are not classes; None where they may be."""
    last = peek(read_last_operator, path)
    if last is None or last.kind != "TopK":
        return None
    return "expected an output [N, classes], the model sorts them (TopK)"


def _find_difference(trial: TrialResult, expected: Contract) -> str | None:
    if expected.num_classes and trial.num_classes != expected.num_classes:
        return f"it has {trial.num_classes} classes, expected {expected.num_classes}"
    if expected.postprocess and trial.postprocess not in (None, expected.postprocess):
        return f"it answers {SAYS[trial.postprocess]}, expected {SAYS[expected.postprocess]}"
    if expected.input_dtype and trial.dtype != expected.input_dtype:
        return f"it takes {trial.dtype}, expected {expected.input_dtype}"
    have = trial.inputs[0].shape[1:]
    want = expected.input_shape[1:]
    clash = any(h and w and h != w for h, w in zip(have, want, strict=False))
    if want and (clash or len(have) != len(want)):
        return f"it takes {_shape(have)}, expected {_shape(want)}"
    return None


def _shape(axes: Sequence[int | str | None]) -> str:
    return "x".join("any" if axis is None else str(axis) for axis in axes)


def describe_tensors(values: tuple[TensorFacts, ...]) -> str:
    """Return inputs or outputs in a few words: name, element type and shape of each."""
    shown = (f"{one.name}: {one.dtype} [{_shape(one.shape)}]" for one in values)
    return ", ".join(shown) or "none"
