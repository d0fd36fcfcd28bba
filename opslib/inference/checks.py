"""Is this model fit to serve? The stages of that question, together or one by one.

    files      its bytes are those of its card                      `check_files` (core)
    load       a child process can load it within limits            `trial.try_model`
    contract   it takes and answers what is expected                `contract.check_contract`
    outputs    answers are finite and depend on the image           `contract.check_outputs`
    golden     the card's golden images get the card's answers      `golden.check_golden`

Each stage raises a `ModelCheckError` that carries its name, so that quantizing, releasing and
reloading can say where a model failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from opslib.core.cards import ModelCard, check_files
from opslib.core.errors import ModelError
from opslib.core.models import find_model_files
from opslib.inference.stages import ModelCheckError, Preprocess, Stage

if TYPE_CHECKING:
    from opslib.inference.contract import Contract
    from opslib.inference.golden import GoldenResult
    from opslib.inference.trial import TrialLimits, TrialResult


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
        contract: what it must be: an image classifier, or any model that loads.

    Raises:
        ModelCheckError: a stage failed; `stage` names it.
    """
    from opslib.inference.contract import (
        Contract,
        check_contract,
        check_outputs,
        probe_images,
        probe_size,
    )
    from opslib.inference.golden import check_golden, load_golden
    from opslib.inference.trial import join_images, try_model

    stages: list[Stage] = []
    if card is not None and card.files:
        run_files_stage(path, card)
        stages.append("files")
    if contract == "any":
        trial = try_model(path, limits=limits)
        return ModelCheck(path, trial, (*stages, "load"), None)
    expected = previous or (Contract.from_card(card) if card is not None else None)
    size = probe_size(path, expected, img_size)
    golden = None
    if card is not None and card.golden:
        golden = load_golden(card, card_folder or path.resolve().parent, preprocess, size)
    probes = probe_images(size)
    batch = join_images(golden.images if golden else None, probes)
    trial = try_model(path, images=batch, limits=limits)
    stages.append("load")
    check_contract(path, trial, expected)
    stages.append("contract")
    check_outputs(path, trial.answered(), differing=len(probes))
    stages.append("outputs")
    result = None
    if golden is not None:
        result = check_golden(path, trial.answered()[: len(golden.images)], golden)
        stages.append("golden")
    return ModelCheck(path, trial, tuple(stages), result)


def run_files_stage(path: Path, card: ModelCard) -> None:
    """Compare the model's files with its card's digests.

    Raises:
        ModelCheckError: stage `files`.
    """
    try:
        check_files(find_model_files(path), card)
    except ModelError as error:
        raise ModelCheckError("files", str(error)) from error
