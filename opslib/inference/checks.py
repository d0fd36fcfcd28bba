"""Is this model fit to serve? The stages of that question, together or one by one.

    files      its bytes are those of its card                      `check_files` (core)
    load       a child process can load it within limits            `trial.try_model`
    contract   it takes and answers what is expected                `contract.check_contract`
    outputs    answers are finite and depend on the image           `contract.check_outputs`
    golden     the card's golden images get the card's answers      `golden.check_golden`

A model that is no classifier goes through `files` and `load`; where its card has golden images it
has to answer them in finite numbers (`outputs`) and as the card says (`golden`).

Each stage raises a `ModelCheckError` that carries its name, so that quantizing, releasing and
reloading can say where a model failed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from opslib.core.cards import ModelCard, check_files
from opslib.core.errors import ModelError
from opslib.core.models import find_model_files, follow_model
from opslib.core.sections import ReloadSection
from opslib.inference.causes import ModelCheckError, Preprocess, Stage
from opslib.inference.contract import (
    DEFAULT_PROBE_PX,
    Contract,
    check_contract,
    check_input,
    check_outputs,
    probe_images,
    probe_size,
    read_input_size,
    resolve_img_size,
)
from opslib.inference.golden import (
    GoldenResult,
    check_golden,
    check_golden_outputs,
    load_golden,
)
from opslib.inference.trial import DEFAULT_LIMITS, TrialResult, join_images, try_model


@dataclass(frozen=True)
class ModelCheck:
    """What a model that passed is, the stages gone through, the golden images reproduced."""

    trial: TrialResult
    stages: tuple[Stage, ...]
    golden: GoldenResult | None


def check_model(
    path: Path,
    card: ModelCard | None,
    *,
    preprocess: Preprocess,
    img_size: int | None = None,
    previous: Contract | None = None,
    card_folder: Path | None = None,
    limits: ReloadSection = DEFAULT_LIMITS,
    contract: Literal["classifier", "any"] = "classifier",
) -> ModelCheck:
    """Take a model through every stage that its card allows, and return what was found; a
    `ModelCheckError` names the stage that failed.

    Without a `card` neither its files nor golden images (which `preprocess` turns into its input)
    are checked. `img_size` is the configured side, where there is one. `previous` is the
    contract of the model in service, whose image size its card must keep, too; without it the
    card's is taken. Golden images lie in `card_folder`, by default the model's own. `contract` is
    what it must be: an image classifier, or any model that loads and answers as its own card says.
    """
    stages: tuple[Stage, ...] = ()
    if card is not None and card.files:
        try:
            check_files(find_model_files(path), card)
        except ModelError as error:
            raise ModelCheckError("files", str(error)) from error
        stages = ("files",)
    folder, golden = card_folder or follow_model(path).parent, None
    if contract == "any":
        if card is not None and card.golden_images:
            golden = load_golden(card, folder, preprocess, choose_size(path, card, img_size))
            trial, result = _check_any(path, card, golden, limits)
            return ModelCheck(trial, (*stages, "load", "outputs", "golden"), result)
        return ModelCheck(try_model(path, limits=limits), (*stages, "load"), None)
    expected = previous or (Contract.from_card(card) if card is not None else None)
    served = resolve_img_size(img_size, previous, None)
    promised = resolve_img_size(img_size, card, None)
    size = served or probe_size(path, card, img_size)
    check_input(path, size)
    if served is not None and promised not in (None, served):
        problem = f"its card says {promised} pixels, the images have {size} pixels a side"
        raise ModelCheckError("contract", f"{path}: {problem}")
    if card is not None and card.golden:
        golden = load_golden(card, folder, preprocess, size)
    probes = probe_images(size)
    trial = try_model(path, images=join_images(golden, probes), limits=limits)
    check_contract(path, trial, expected)
    check_outputs(path, trial.answered(), differing=len(probes))
    stages = (*stages, "load", "contract", "outputs")
    if card is None or golden is None:
        return ModelCheck(trial, stages, None)
    result = check_golden(path, trial.probabilities()[: len(golden)], card.golden)
    return ModelCheck(trial, (*stages, "golden"), result)


def _check_any(
    path: Path, card: ModelCard, golden: NDArray[np.float32], limits: ReloadSection
) -> tuple[TrialResult, GoldenResult]:
    """Make sure that any model answers its golden images as its card says."""
    if card.golden_outputs:
        trial = try_model(path, images=golden, every_output=True, limits=limits)
        check_finite(path, trial)
        answers = trial.every_output[len(card.golden) :]
        return trial, check_golden_outputs(path, card.golden_outputs, answers)
    trial = try_model(path, images=golden, limits=limits)
    check_contract(path, trial, None)
    check_outputs(path, trial.answered(), differing=0)
    return trial, check_golden(path, trial.probabilities(), card.golden)


def check_finite(path: Path, trial: TrialResult) -> None:
    """Refuse (stage `outputs`) a model of which an output holds what is no number, or none holds
    numbers at all."""
    if not trial.every_output:
        why = "none of its outputs holds numbers that could be compared"
        raise ModelCheckError("outputs", f"{path}: {why}")
    for name, values in (one for outputs in trial.every_output for one in outputs.items()):
        if not np.isfinite(values).all():
            raise ModelCheckError("outputs", f"{path}: output {name!r} holds a NaN or an infinity")


def choose_size(path: Path, card: ModelCard | None, img_size: int | None) -> int:
    """Return the input pixels of a model that is no classifier: what its card says, else its own,
    else `img_size`, which is set with the classifier in mind."""
    return resolve_img_size(None, card, read_input_size(path)) or img_size or DEFAULT_PROBE_PX
