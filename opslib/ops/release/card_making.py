"""A card for a model that was exported elsewhere: its digests, and golden images with its answers.

The golden images are copied beside the model, named after their content, so that two cards may
share one and none is ever written over.
"""

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opslib.core.cards import (
    FileEntry,
    GoldenAnswer,
    GoldenOutputs,
    ModelCard,
    card_path,
    list_files,
    read_export_report,
)
from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError, ParameterError
from opslib.core.files import ensure_writable, sha256_bytes, sha256_file, write_bytes_atomic
from opslib.core.formatting import plural
from opslib.core.kinds import find_kind, pick_kind_of
from opslib.core.models import find_model_files, resolve_model
from opslib.inference.checks import check_finite, choose_size
from opslib.inference.contract import check_contract, check_outputs, probe_images, probe_size
from opslib.inference.find_model import find_card, find_onnx, model_moment
from opslib.inference.golden import answer_golden, check_golden_outputs, summarise_outputs
from opslib.inference.images import list_images, pick_images
from opslib.inference.preprocess import load_preprocessor
from opslib.inference.signature import Signature, read_signature
from opslib.inference.trial import join_images, try_model
from opslib.ops.quantize.labels import check_label_map, read_label_map

DEFAULT_IMAGES = 8
GOLDEN_FOLDER = "golden"
_DIGEST_CHARACTERS = 16
Paths = tuple[Path, ...]


@dataclass(frozen=True)
class NewCard:
    """A card that is not written yet: where it belongs, its golden images, each with the file that
    it is copied from, and what a person should know."""

    path: Path
    card: ModelCard
    sources: tuple[Path, ...]
    notes: tuple[str, ...]

    def write(self) -> None:
        """Copy the golden images, then write the card in one step; where that fails, what was
        copied is removed again. Raises InputError: an image changed meanwhile; StorageError: there
        is no room, or the folder cannot be written."""
        with ExitStack() as undo:
            for source, golden in zip(self.sources, self.card.golden_images, strict=True):
                place = self.path.parent / golden.image
                if place.exists() and sha256_file(place) == golden.sha256:
                    continue
                data = source.read_bytes()
                if sha256_bytes(data) != golden.sha256:
                    raise InputError(f"{source}: changed while the card was made; make it again")
                ensure_writable(place.parent)
                undo.callback(place.unlink, missing_ok=True)
                write_bytes_atomic(place, data)
            self.card.write(self.path)
            undo.pop_all()


def make_card(
    config: Config,
    model: Path,
    *,
    kind: str | None = None,
    images: int = DEFAULT_IMAGES,
    inputs: str | None = None,
    force: bool = False,
) -> NewCard:
    """Return a card for `model`, from what its export report says, its own bytes, and its answers
    to images.

    `kind` is what it must be, by default the kind that its name says, else any model; `images` how
    many golden images are taken from `inputs`, a glob, by default of the validation images; `force`
    makes one although there is one. Raises ParameterError: it has a card already, or there is no
    such kind; ModelError: it is missing, or does not load or answer as its kind asks for;
    InputError: there are no images.
    """
    path = resolve_model(find_onnx(config, model))
    place = card_path(path)
    if place.is_dir():
        raise ParameterError(f"{place}: is a folder; expected the place of the card")
    if os.path.lexists(place) and not force:
        raise ParameterError(f"{place}: is there already; --force replaces it")
    chosen = find_kind(config, path) if kind is None else pick_kind_of(config, path, kind)
    with path.open("rb") as file:
        signature = read_signature(file, str(path))
    files = list_files(find_model_files(path))
    known = _find_known(config, path, files)
    found = pick_images(config, "val", inputs, limit=images).paths
    if chosen is not None and chosen.contract == "classifier":
        facts, notes = _ask_classifier(config, path, known, found)
    else:
        facts, notes = _ask_any(config, path, known, found, signature)
    exported_at = datetime.fromtimestamp(model_moment(path), UTC)
    described = {
        "onnx_path": f"{path.parent.name}/{path.name}",
        "exported_at_utc": exported_at.isoformat(timespec="seconds"),
        "providers": ("CPUExecutionProvider",),
        **(known.model_dump(exclude={"schema"}) if known else {}),
        "input_shape": signature.inputs[0].shape,
        "opset": signature.opset,
        "files": files,
        "golden": (),
        "golden_outputs": (),
        **facts,
    }
    return NewCard(place, ModelCard.model_validate(described), found, tuple(notes))


def _ask_classifier(
    config: Config, path: Path, known: ModelCard | None, found: Paths
) -> tuple[dict[str, Any], list[str]]:
    size = config.preprocess.img_size or probe_size(path, None, None)
    probes = probe_images(size)
    batch = join_images(_prepare(config, found, size), probes)
    trial = try_model(path, images=batch, limits=config.reload)
    check_contract(path, trial, None)
    check_outputs(path, trial.answered(), differing=len(probes))
    probabilities = trial.probabilities()[: len(found)]
    named = [{"image": name, "sha256": digest} for name, digest in map(_name_golden, found)]
    empty = tuple(GoldenAnswer(**one, class_id=0, probabilities=()) for one in named)
    golden = answer_golden(empty, probabilities)
    classes = int(probabilities.shape[1])
    names, note = known.class_names if known else (), None
    if len(names) != classes:
        names, note = _name_classes(config, path, found, [one.class_id for one in golden], classes)
    facts = {"num_classes": classes, "class_names": names, "golden": golden}
    said = {} if known and known.postprocess else {"postprocess": trial.postprocess}
    return facts | said, [note] if note else []


def _ask_any(
    config: Config, path: Path, known: ModelCard | None, found: Paths, signature: Signature
) -> tuple[dict[str, Any], list[str]]:
    shapes = [one.shape for one in signature.inputs]
    sides = [side for side in (shapes[0][2:] if shapes else ()) if isinstance(side, int)]
    if len(shapes) != 1 or len(shapes[0]) != 4 or len(set(sides)) > 1:
        shown = ", ".join(f"[{'x'.join(map(str, shape))}]" for shape in shapes) or "nothing"
        raise ModelError(f"{path}: takes {shown}; golden images need one square input [N, 3, H, W]")
    images = _prepare(config, found, choose_size(path, known, config.preprocess.img_size))
    # Each is asked twice: what differs from one time to the next can never be compared.
    twice = join_images(images, images)
    trial = try_model(path, images=twice, every_output=True, limits=config.reload)
    check_finite(path, trial)
    first, second = trial.every_output[: len(found)], trial.every_output[len(found) :]
    golden = tuple(
        GoldenOutputs(image=name, sha256=digest, outputs=summarise_outputs(answer))
        for (name, digest), answer in zip(map(_name_golden, found), first, strict=True)
    )
    check_golden_outputs(path, golden, second)
    return {"num_classes": None, "golden_outputs": golden}, []


def _name_classes(
    config: Config, path: Path, found: Paths, answers: list[int], classes: int
) -> tuple[tuple[str, ...], str | None]:
    """The class names, from the configured class map, else from the folders of the training images
    in their order where the model's answers bear that out; and why there are none."""
    if config.images.labels is not None:
        labels = read_label_map(config.resolve(config.images.labels))
        check_label_map(labels, (), classes, path.name)
        names = labels.names
        return (names, None) if len(names) == classes else ((), "the class map has fewer classes")
    names = tuple(sorted({image.parent.name for image in list_images(config, "train").paths}))
    if len(names) != classes:
        seen = f"the training images lie in {plural(len(names), 'folder')}"
        return (), f"no class names: {seen}, the model has {plural(classes, 'class', 'classes')}"
    told = [(image.parent.name, names[one]) for image, one in zip(found, answers, strict=True)]
    right = sum(folder == name for folder, name in told)
    if 2 * right > len(told):
        return names, None
    seen = f"{right} of {plural(len(told), 'image')} got the class of its folder"
    return (), f"no class names: by the order of the folders' names only {seen}"


def _find_known(config: Config, path: Path, files: tuple[FileEntry, ...]) -> ModelCard | None:
    """What is known of the model: not what a card says of other bytes, or one that cannot be
    read, which is about to be replaced."""
    card = None
    with suppress(InputError):
        card = find_card(config, path)
    if card is not None and card.files in ((), files):
        return card
    report = read_export_report(config.export_dir)
    fits = report is not None and report.files in ((), files)
    return report if report and fits and Path(report.onnx_path).name == path.name else None


def _prepare(config: Config, found: Paths, size: int) -> Any:
    preprocessor = load_preprocessor(config.preprocess.function, config.code_root)
    return preprocessor.run([str(image) for image in found], size)


def _name_golden(image: Path) -> tuple[str, str]:
    digest = sha256_file(image)
    return f"{GOLDEN_FOLDER}/{digest[:_DIGEST_CHARACTERS]}{image.suffix.lower()}", digest
