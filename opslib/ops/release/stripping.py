"""A copy of a model without the metadata that gives something away, and the proof that it answers
alike: the copy is what is packed, the model in `export/` stays as it is."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from opslib.core.cards import REPORT_NAME, FileEntry
from opslib.core.config import Config
from opslib.core.errors import InputError, storage_errors
from opslib.core.formatting import plural
from opslib.core.wire import FileBytes, Span, leave_out
from opslib.ops.release.gives_away import Telling, describe_tellings, find_tellings
from opslib.ops.release.manifest import EXPORT_FOLDER, ReleaseError
from opslib.ops.release.opened import Collection, OpenedFile, OpenedModel

if TYPE_CHECKING:
    from opslib.inference.trial import TrialResult

_CHUNK_BYTES = 1 << 20
Tellings = Mapping[str, tuple[Telling, ...]]


def look_through(found: Collection) -> Tellings:
    """Return what each model's file gives away, by its member. Raises ModelError: a file is no
    model, or damaged."""
    opened = [one.model for one in found.models]
    return {one.member: find_tellings(one.file, str(one.source)) for one in opened}


def describe_left(found: Collection, tellings: Tellings) -> tuple[str, ...]:
    """Return what the models give away as they were packed, a line or two for each."""
    lines: list[str] = []
    for model in found.models:
        told = tellings[model.model.member]
        left = [one for one in told if model.original is None or one.place == "names"]
        lines += describe_tellings(model.model.member, left)
    return tuple(lines)


def strip_models(
    found: Collection, tellings: Tellings, folder: Path, stack: ExitStack
) -> Collection:
    """Return the collection with a copy in place of each model of which metadata is among the
    `tellings`, by its member, and with the copy's digest in what stated the model's. The copies
    are files without a name in `folder`, open until `stack` ends. Raises InputError: a file changed
    meanwhile; StorageError: the disk is full."""
    copies: dict[str, OpenedFile] = {}
    stated: dict[str, FileEntry] = {}
    models, notes = [], list(found.notes)
    for model in found.models:
        cuts = [one.span for one in tellings[model.model.member] if one.place == "metadata"]
        if cuts:
            was = _state(model.model)
            copy = _copy_without(model.model, cuts, folder, stack)
            copies[copy.member], stated[was.sha256] = copy, _state(copy)
            model = replace(model, files=(copy, *model.files[1:]), original=was)
            without = f"without {plural(len(cuts), 'entry', 'entries')} of metadata"
            notes.append(f"{copy.member}: a copy of sha256 {was.sha256[:12]}… {without}")
        models.append(model)
    cards = {one.card_member for one in models} | {f"{EXPORT_FOLDER}/{REPORT_NAME}"}
    for opened in found.files if stated else ():
        if opened.member in cards:
            copies[opened.member] = _restate(opened, stated, folder, stack)
    files = tuple(copies.get(one.member, one) for one in found.files)
    return replace(found, files=files, models=tuple(models), notes=tuple(notes))


def check_alike(found: Collection, unpacked: Path, config: Config) -> None:
    """Ask each model in `export/` of which a copy was packed, and that copy, `unpacked`, the card's
    golden images and probes, and compare every output bit for bit. Raises ReleaseError: they
    differ, or it cannot be known; the message names the model."""
    for model in found.models:
        if model.original is not None:
            _check_copy(model, unpacked, config)


def _check_copy(model: OpenedModel, unpacked: Path, config: Config) -> None:
    from opslib.inference.causes import ModelCheckError
    from opslib.inference.checks import choose_size
    from opslib.inference.contract import probe_images
    from opslib.inference.golden import load_golden
    from opslib.inference.preprocess import load_preprocessor
    from opslib.inference.trial import join_images, try_model

    path, card, member = model.model.source, model.card, model.model.member
    size = choose_size(path, card, config.preprocess.img_size)
    try:
        images = probe_images(size)
        if card is not None and card.golden_images:
            prepare = load_preprocessor(config.preprocess.function, config.code_root).run_checked
            images = join_images(load_golden(card, path.parent, prepare, size), images)
        answers, copied = (
            _spell(try_model(one, images=images, every_output=True, limits=config.reload))
            for one in (path, unpacked / member)
        )
    except (ModelCheckError, InputError) as error:
        said = str(error).replace(f"{unpacked}/", "")
        raise ReleaseError(f"{member}: cannot be shown to answer alike: {said}") from error
    if not answers:
        raise ReleaseError(f"{member}: cannot be shown to answer alike: no output holds numbers")
    if answers != copied:
        raise ReleaseError(f"{member}: its copy without metadata answers otherwise")


def _spell(trial: "TrialResult") -> list[dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """The outputs of each image as bytes, which no rounding makes equal."""
    return [
        {name: (str(one.dtype), one.shape, one.tobytes()) for name, one in outputs.items()}
        for outputs in trial.every_output
    ]


def _copy_without(
    opened: OpenedFile, cuts: list[Span], folder: Path, stack: ExitStack
) -> OpenedFile:
    try:
        pieces = leave_out(FileBytes(opened.file), 0, opened.size, cuts)
    except (ValueError, IndexError) as error:
        raise InputError(f"{opened.source}: changed while it was packed; release again") from error

    def write(file: BinaryIO) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                file.write(piece)
                continue
            for at in range(*piece, _CHUNK_BYTES):
                file.write(opened.read_at(at, min(_CHUNK_BYTES, piece[1] - at)))

    return _replace(opened, write, folder, stack)


def _restate(
    opened: OpenedFile, stated: Mapping[str, FileEntry], folder: Path, stack: ExitStack
) -> OpenedFile:
    """A card, or an export report of whatever form, with the copies' sizes and digests."""
    said = opened.read_object()
    listed = said.get("files")
    for entry in listed if isinstance(listed, list) else ():
        now = stated.get(str(entry.get("sha256"))) if isinstance(entry, dict) else None
        if now is not None:
            entry.update(size=now.size, sha256=now.sha256)
    data = f"{json.dumps(said, indent=2)}\n".encode()
    return _replace(opened, lambda file: file.write(data), folder, stack)


def _replace(
    opened: OpenedFile, write: Callable[[BinaryIO], object], folder: Path, stack: ExitStack
) -> OpenedFile:
    """The same member with other bytes."""
    with storage_errors(f"write into {folder}"):
        made = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        file = cast(BinaryIO, made)
        write(file)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)  # packing reads on from where the file stands
        facts = os.fstat(file.fileno())
    opened.ensure_unchanged()
    return replace(opened, file=file, size=facts.st_size, mtime_ns=facts.st_mtime_ns)


def _state(opened: OpenedFile) -> FileEntry:
    """What a card says of a file."""
    digest = hashlib.sha256()
    for at in range(0, opened.size, _CHUNK_BYTES):
        digest.update(opened.read_at(at, _CHUNK_BYTES))
    return FileEntry(path=opened.source.name, size=opened.size, sha256=digest.hexdigest())
