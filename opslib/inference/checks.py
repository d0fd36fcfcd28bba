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

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from opslib.core.cards import ModelCard, check_files
from opslib.core.errors import ModelError
from opslib.core.models import find_model_files, follow_model
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
from opslib.inference.trial import TrialLimits, TrialResult, join_images, try_model


@dataclass(frozen=True)
class ModelCheck:
    """A model that passed: what it is, the stages gone through, the golden images reproduced."""

    path: Path
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
    limits: TrialLimits | None = None,
    contract: Literal["classifier", "any"] = "classifier",
) -> ModelCheck:
    """Take a model through every stage that its card allows, and return what was found.

    Args:
        card: what the model should be; without one its files and golden images are not checked.
        preprocess: turns golden image files into the model's input.
        img_size: input pixels where neither the model nor its card says them.
        previous: the contract of the model in service; without it the card's is taken.
        card_folder: where the golden images are looked up; the model's own folder by default.
        contract: what it must be: an image classifier, or any model that loads and answers as its
            own card says.

    Raises:
        ModelCheckError: a stage failed; `stage` names it.
    """
    stages: list[Stage] = []
    if card is not None and card.files:
        try:
            check_files(find_model_files(path), card)
        except ModelError as error:
            raise ModelCheckError("files", str(error)) from error
        stages.append("files")
    if contract == "any":
        return _check_any(path, card, preprocess, img_size, card_folder, limits, stages)
    expected = previous or (Contract.from_card(card) if card is not None else None)
    size = probe_size(path, expected, img_size)
    check_input(path, size)
    golden, result = None, None
    if card is not None and card.golden:
        golden = load_golden(card, card_folder or follow_model(path).parent, preprocess, size)
    probes = probe_images(size)
    batch = join_images(golden, probes)
    trial = try_model(path, images=batch, limits=limits)
    stages.append("load")
    check_contract(path, trial, expected)
    stages.append("contract")
    check_outputs(path, trial.answered(), differing=len(probes))
    stages.append("outputs")
    if card is not None and golden is not None:
        result = check_golden(path, trial.probabilities()[: len(golden)], card.golden)
        stages.append("golden")
    return ModelCheck(path, trial, tuple(stages), result)


def _check_any(
    path: Path,
    card: ModelCard | None,
    preprocess: Preprocess,
    img_size: int | None,
    card_folder: Path | None,
    limits: TrialLimits | None,
    stages: list[Stage],
) -> ModelCheck:
    """The stages of a model that only has to load and to answer as its own card says."""
    if card is None or not card.golden_images:
        trial = try_model(path, limits=limits)
        return ModelCheck(path, trial, (*stages, "load"), None)
    size = choose_size(path, card, img_size)
    golden = load_golden(card, card_folder or follow_model(path).parent, preprocess, size)
    if card.golden_outputs:
        trial = try_model(path, images=golden, every_output=True, limits=limits)
        check_finite(path, trial)
        answers = trial.every_output[len(card.golden) :]
        result = check_golden_outputs(path, card.golden_outputs, answers)
    else:  # a classifier among models of which no more is asked
        trial = try_model(path, images=golden, limits=limits)
        check_contract(path, trial, None)
        check_outputs(path, trial.answered(), differing=0)
        result = check_golden(path, trial.probabilities(), card.golden)
    return ModelCheck(path, trial, (*stages, "load", "outputs", "golden"), result)


def check_finite(path: Path, trial: TrialResult) -> None:
    """Refuse a model of which an output holds what is no number, or none holds numbers at all.

    Raises:
        ModelCheckError: stage `outputs`; the message names the output.
    """
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
