"""Models that a service must refuse, made from the one it serves: the drill's list of bad news.

Those that need no file (a typo, an address) can be tried on any service; the others are written
into a folder that the service takes models from.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from opslib.core.cards import ModelCard, card_path, list_files, read_card
from opslib.core.errors import ModelError
from opslib.core.models import find_model_files
from opslib.ops.drill.copies import (
    copy_unit,
    read_classifier_shape,
    write_stand_in,
)

BAD_NAME = "bad.onnx"
OTHER_PX = 8
_CUT_BYTES = 40


@dataclass(frozen=True)
class Ground:
    """What bad models are made of and where: the served model, as the service names it, an empty
    `folder` that the service may take models from, and one `outside` that it may not."""

    stable: Path
    folder: Path
    outside: Path

    @property
    def card(self) -> ModelCard | None:
        """The served model's card, or None where it has none; InputError where it is damaged."""
        return read_card(self.stable)

    @property
    def path(self) -> Path:
        """Where the bad model of this ground lies."""
        return self.folder / BAD_NAME

    def stand_in(self, path: Path | None = None, *, sidecar: bool = False, **other: int) -> Path:
        """Write a classifier that answers as the served model is asked, but for what is `other`."""
        shape = replace(read_classifier_shape(self.stable), **other)
        return write_stand_in(path or self.path, shape, sidecar=sidecar)

    def copy(self, wanted: str, *keys: str) -> Path:
        """Copy the served model; NotPossibleError where its card lacks what is wanted."""
        if not all(getattr(self.card, key, None) for key in keys):
            raise NotPossibleError(f"the model has no card with {wanted}")
        return copy_unit(self.stable, self.folder)


class NotPossibleError(Exception):
    """A bad model that cannot be made of this one; the message is the reason."""


@dataclass(frozen=True)
class Fault:
    """One bad model: in words, and how its path comes to be. `stage` is the check of the reference
    service that is meant to find it. A service that reads it without looking first may wait for
    ever, where it `hangs`."""

    name: str
    stage: str
    make: Callable[[Ground], Path | str]
    needs_folder: bool = True
    hangs: bool = False

    @property
    def classifier(self) -> bool:
        """Whether it is bad only as a classifier."""
        return self.stage in ("contract", "outputs", "golden")


def list_faults() -> tuple[Fault, ...]:
    """Return every bad model, in the order of the stages that refuse them."""
    return (
        Fault("a path with a typo", "path", _typo, False),
        Fault("a path that climbs out", "path", _climbing, False),
        Fault("a web address", "path", lambda _: "https://models.invalid/m.onnx", False),
        Fault("a model outside the folder", "path", _outside),
        Fault("a link to a model outside", "path", _link_out),
        Fault("a folder", "path", _written(Path.mkdir)),
        Fault("a pipe", "path", _written(os.mkfifo), hangs=True),
        Fault("an empty file", "read", _written(Path.touch)),
        Fault("text", "read", _written(lambda path: path.write_text("this is no model\n" * 50))),
        Fault("zeros", "read", _written(lambda path: path.write_bytes(bytes(1 << 16)))),
        Fault("a cut-off file", "read", _truncated),
        Fault("no weights file beside it", "read", _without_sidecar),
        Fault("weights that are a link out", "read", _sidecar_link_out),
        Fault("one flipped bit", "files", _flipped),
        Fault("another number of classes", "contract", _other_count),
        Fault("classes in another order", "contract", _other_names),
        Fault("another input size", "contract", _other_size),
        Fault("NaN weights", "outputs", _filled(float("nan"))),
        Fault("constant answers", "outputs", _filled(0.0)),
        Fault("wrong golden answers", "golden", _wrong_golden),
    )


@contextmanager
def make_fault(
    fault: Fault, stable: Path, places: tuple[Path, Path] | None
) -> Iterator[Path | str]:
    """Make a bad model, yield the path to ask a service for, and remove what was made. `stable`:
    the served model, as the service names it. `places`: where a folder inside and one outside the
    service's reach may be made; None: nowhere. Raises NotPossibleError: it cannot be made of this
    model, or there is no place for it."""
    if places is None:
        if fault.needs_folder:
            raise NotPossibleError("the service's model folder cannot be written from here")
        yield fault.make(Ground(stable, stable.parent, stable.parent))
        return
    ground = Ground(stable, *places)
    try:
        try:
            for folder in places:
                folder.mkdir(parents=True)
            path = fault.make(ground)
        except (ModelError, OSError, ValueError) as error:
            raise NotPossibleError(str(error)) from error
        yield path
    finally:
        for folder in places:
            shutil.rmtree(folder, ignore_errors=True)


def _typo(ground: Ground) -> Path:
    return ground.stable.with_name(f"{ground.stable.stem}-typo.onnx")


def _climbing(ground: Ground) -> str:
    return f"{ground.stable.parent}/../../../../../../etc/{ground.stable.name}"


def _written(write: Callable[[Path], object]) -> Callable[[Ground], Path]:
    def make(ground: Ground) -> Path:
        write(ground.path)
        return ground.path

    return make


def _filled(value: float) -> Callable[[Ground], Path]:
    return lambda ground: write_stand_in(
        ground.path, read_classifier_shape(ground.stable), fill=value
    )


def _outside(ground: Ground) -> Path:
    path = ground.outside / BAD_NAME
    return path if path.exists() else ground.stand_in(path)


def _link_out(ground: Ground) -> Path:
    ground.path.symlink_to(_outside(ground))
    return ground.path


def _truncated(ground: Ground) -> Path:
    ground.path.write_bytes(ground.stable.read_bytes()[:-_CUT_BYTES])
    return ground.path


def _without_sidecar(ground: Ground) -> Path:
    ground.stand_in(sidecar=True).with_name(f"{BAD_NAME}.data").unlink()
    return ground.path


def _sidecar_link_out(ground: Ground) -> Path:
    sidecar = ground.stand_in(sidecar=True).with_name(f"{BAD_NAME}.data")
    sidecar.symlink_to(sidecar.rename(ground.outside / sidecar.name))
    return ground.path


def _flipped(ground: Ground) -> Path:
    copy = ground.copy("digests", "files")
    weights = max(find_model_files(copy).all, key=lambda path: path.stat().st_size)
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))
    return copy


def _other_count(ground: Ground) -> Path:
    return ground.stand_in(classes=read_classifier_shape(ground.stable).classes + 1)


def _other_names(ground: Ground) -> Path:
    if ground.card is None or len(ground.card.class_names) < 2:
        raise NotPossibleError("the model has no card with class names")
    copy = ground.copy("class names", "class_names")
    card = ModelCard.read(card_path(copy))
    names = (*card.class_names[1:], card.class_names[0])
    card.model_copy(update={"class_names": names}).write(card_path(copy))
    return copy


def _other_size(ground: Ground) -> Path:
    shape = read_classifier_shape(ground.stable)
    if not shape.height or not shape.width:
        raise NotPossibleError("the model takes images of any size")
    return ground.stand_in(height=shape.height + OTHER_PX, width=shape.width + OTHER_PX)


def _wrong_golden(ground: Ground) -> Path:
    copy = ground.copy("golden images", "golden", "files")
    card = ModelCard.read(card_path(copy))
    for path in find_model_files(copy).all:
        path.unlink()
    files = find_model_files(ground.stand_in(copy))
    card.model_copy(update={"files": list_files(files)}).write(card_path(copy))
    return copy
