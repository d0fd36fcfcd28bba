"""Model cards: what is known of an exported model, kept beside it as `<stem>.json`.

A card is evidence. One that was never there is none; one that is there and cannot be read, whatever
the reason, is never taken for none.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from opslib.core.errors import InputError, ModelError
from opslib.core.files import sha256_file
from opslib.core.models import ModelFiles, follow_model
from opslib.core.records import Part, Record, read_json

REPORT_NAME = "export_report.json"
_DAMAGED = "evidence that is there but cannot be read"
# What a foreign report says in these is shown at most; in a form that we do not know it is none.
_SHOWN_ONLY = frozenset(
    {
        "backbone",
        "ckpt_path",
        "compare",
        "exported_at_utc",
        "git_sha",
        "params_million",
        "providers",
        "train_data_sha256",
    }
)


class FileEntry(Part):
    """A file by its name relative to the record's folder, its size in bytes and its SHA-256."""

    path: str
    size: int
    sha256: str


class GoldenAnswer(Part):
    """What the model must say of one image: its class and softmax probabilities `[C]`."""

    image: str
    sha256: str
    class_id: int
    probabilities: tuple[float, ...]


class GoldenTensor(Part):
    """One output of a model for a golden image, in short: `values` are taken evenly over its
    elements in their order, `mean` and `max_abs` are of all of them."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    max_abs: float


class GoldenOutputs(Part):
    """What a model that is no classifier must say of one image: each of its outputs."""

    image: str
    sha256: str
    outputs: tuple[GoldenTensor, ...]


class ExportCompare(Part):
    """How far the exported model's softmax outputs lie from the checkpoint's, as measured."""

    model_config = ConfigDict(extra="allow")

    mode: str
    sample_count: int
    mse_mean: float
    mse_p99: float
    top1_match_rate: float
    top1_mismatch_count: int
    failed: bool = False
    failure_reason: str | None = None
    notes: str | None = None


# A single name is taken for the list of it.
Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]


class ModelCard(Record):
    """The export report of one model plus the digests, class names and golden answers we add.

    `input_shape` is `[N, C, H, W]` with a string or null where an axis is dynamic. `golden` is of
    classifiers, `golden_outputs` of other models, which have no `num_classes` either.
    `train_data_sha256` is a digest of the images that it was trained on, as whoever trained it
    makes one. Fields this project does not know are kept as they are, so that a foreign report
    survives a round trip.
    """

    schema_name = "model-card"
    model_config = ConfigDict(extra="allow")

    backbone: str | None = None
    num_classes: int | None = None
    ckpt_path: str | None = None
    onnx_path: str
    exported_at_utc: str | None = None
    git_sha: str | None = None
    input_shape: tuple[int | str | None, ...] = ()
    opset: int | str | None = None
    dynamic_axes: Any = None
    params_million: float | None = None
    providers: Names = ()
    postprocess: Any = None
    compare: ExportCompare | None = None
    train_data_sha256: str | None = Field(default=None, exclude_if=lambda found: found is None)
    files: tuple[FileEntry, ...] = ()
    class_names: tuple[str, ...] = ()
    golden: tuple[GoldenAnswer, ...] = ()
    golden_outputs: tuple[GoldenOutputs, ...] = Field(
        default=(), exclude_if=lambda found: not found
    )

    @property
    def golden_images(self) -> tuple[GoldenAnswer | GoldenOutputs, ...]:
        """The golden images, whatever is known of the answers to them."""
        return (*self.golden, *self.golden_outputs)


def card_path(model: Path) -> Path:
    """Return where the card of a model lies: `<stem>.json` beside it; see `follow_model`."""
    return follow_model(model).with_suffix(".json")


def read_card(model: Path) -> ModelCard | None:
    """Return the card beside `model`, or None where there is none. Raises `InputError` where a card
    is there but cannot be read."""
    path = card_path(model)
    return _read(path) if os.path.lexists(path) else None


def read_export_report(export_dir: Path) -> ModelCard | None:
    """Return `export_report.json` of `export_dir`, or None where there is none or it is foreign and
    does not say what is needed; see `explain_report`. Raises `InputError` where it is there but
    cannot be read, or is one of ours that is damaged."""
    found = _look_at_report(export_dir)
    return found if isinstance(found, ModelCard) else None


def explain_report(export_dir: Path) -> str | None:
    """Return why the export report of `export_dir`, which is there, is not used; None where it is
    or where there is none. Raises `InputError`, see `read_export_report`."""
    error = _look_at_report(export_dir)
    if not isinstance(error, ValidationError):
        return None
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    said = "is missing" if first["type"] == "missing" else first["msg"]
    return f"{REPORT_NAME} is not used: {where}: {said}"


def _look_at_report(export_dir: Path) -> ModelCard | ValidationError | None:
    """The export report, or what is missing or of another form in one that is not ours."""
    path = export_dir / REPORT_NAME
    fields = read_report_fields(path)
    if str(fields.get("schema")).startswith(f"{ModelCard.schema_name}/"):
        return _read(path)
    fields.pop("schema", None)
    try:
        return ModelCard.model_validate(fields) if fields else None
    except ValidationError as error:
        strange = {one["loc"][0] for one in error.errors()} & _SHOWN_ONLY
    try:
        return ModelCard.model_validate({k: v for k, v in fields.items() if k not in strange})
    except ValidationError as error:
        return error


def read_report_fields(path: Path) -> dict[str, Any]:
    """Return the fields of a card or export report, ours or a foreign one; none where there is no
    such file. Raises `InputError` where it is there but is no JSON object."""
    if not os.path.lexists(path):
        return {}
    try:
        content = read_json(path)
    except InputError as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: {_DAMAGED}: expected a JSON object")
    return content


def find_gaps(card: ModelCard | None) -> str | None:
    """Return what is not proved of a model with this card, or None where nothing is missing."""
    if card is None:
        return "no card: neither its bytes nor its answers could be compared with its export"
    missing = [
        *(() if card.files else ("no digests: its bytes could not be compared with its export",)),
        *(() if card.golden_images else ("no golden images: its answers could not be compared",)),
    ]
    return f"its card has {'; '.join(missing)}" if missing else None


def _read(path: Path) -> ModelCard:
    try:
        return ModelCard.read(path)
    except InputError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: InputError) -> InputError:
    return InputError(f"{path}: {_DAMAGED}: {str(error).removeprefix(f'{path}: ')}")


def list_files(model: ModelFiles) -> tuple[FileEntry, ...]:
    """Return name, size and digest of the model and each sidecar."""
    names = {str(one.relative_to(model.path.parent)): one for one in model.all}
    return tuple(
        FileEntry(path=name, size=one.stat().st_size, sha256=sha256_file(one))
        for name, one in names.items()
    )


def check_files(model: ModelFiles, card: ModelCard) -> None:
    """Compare the model's files with the card's digests. Raises `ModelError` where a file is
    missing in the card or its bytes differ; the message names it."""
    digests = {entry.path: entry.sha256 for entry in card.files}
    for entry in list_files(model):
        if (wanted := digests.get(entry.path)) is None:
            raise ModelError(f"{model.path}: {entry.path} is not listed in its card")
        if entry.sha256 != wanted:
            differs = f"sha256 {entry.sha256[:12]}…, expected {wanted[:12]}…"
            raise ModelError(f"{model.path}: {entry.path} differs from its card ({differs})")
