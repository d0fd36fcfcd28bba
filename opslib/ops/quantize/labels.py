"""What the images show: labels from the folders' names, or from the serving code's class map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import InputError
from opslib.core.formatting import plural
from opslib.core.records import read_json
from opslib.inference.images import ImageSet

KEY = "images.labels"
_HINT = f"a class map goes into {KEY}"
_WANTED = (
    'expected {"CODE": class id, ...}, {"class_to_idx": {...}} or a list of codes in the order of '
    "the classes"
)


@dataclass(frozen=True)
class Labels:
    """The true class of each image, int `[N]` with -1 where none is known; why, if so."""

    ids: NDArray[np.int64]
    note: str | None = None

    @property
    def known(self) -> bool:
        """Whether every image has a label."""
        return bool(len(self.ids)) and bool((self.ids >= 0).all())


@dataclass(frozen=True)
class LabelMap:
    """A file's class id of each code; `names` are the codes by class id."""

    path: Path
    ids: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """The code of each class in order, a plain number where the file has none."""
        codes = {number: code for code, number in self.ids.items()}
        return tuple(codes.get(one, f"class {one}") for one in range(max(codes) + 1))

    def label(self, image: Path) -> int:
        """Return the class of an image, by its folder's name or by its own up to the first `_`;
        -1 where the file has neither."""
        by_folder = self.ids.get(image.parent.name)
        return self.ids.get(image.stem.partition("_")[0], -1) if by_folder is None else by_folder


def read_label_map(path: Path) -> LabelMap:
    """Return the class map that a JSON file holds. Raises InputError: it cannot be read, or is
    none; the message names key and file."""
    try:
        content = read_json(path)
    except InputError as error:
        raise InputError(f"{KEY}: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("class_to_idx"), dict):
        content = content["class_to_idx"]
    if isinstance(content, list):
        content = _number(path, content)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{KEY}: {path}: {_WANTED}")
    for code, number in content.items():
        if type(number) is not int or not 0 <= number < 1 << 31:
            shown = repr(number) if len(repr(number)) <= 40 else f"{repr(number)[:40]}..."
            raise InputError(f"{KEY}: {path}: {code!r} has class id {shown}; {_WANTED}")
    if len(set(content.values())) < len(content):
        raise InputError(f"{KEY}: {path}: two codes have the same class id; {_WANTED}")
    return LabelMap(path, content)


def check_label_map(
    labels: LabelMap, class_names: Sequence[str], num_classes: int | None, model: str
) -> None:
    """Refuse a class map that is not that of the model. Raises InputError: it has a class that the
    model has not, or the model's card another order."""
    largest = max(labels.ids, key=lambda code: labels.ids[code])
    if num_classes is not None and labels.ids[largest] >= num_classes:
        raise InputError(
            f"{KEY}: {labels.path}: {largest!r} has class id {labels.ids[largest]:,}, but {model} "
            f"has {plural(num_classes, 'class', 'classes')}; it is not this model's class map"
        )
    for number, name in enumerate(class_names):
        if labels.ids.get(name, number) != number:
            raise InputError(
                f"{KEY}: {labels.path}: {name!r} has class id {labels.ids[name]:,}, in the card of "
                f"{model} {number:,}; it is not this model's class map"
            )


def find_labels(paths: Sequence[Path], class_names: Sequence[str]) -> Labels:
    """Return the labels that folder names give, through the card's class names. Either every image
    has one or none does: a mixture would compare different sets."""
    none = np.full(len(paths), -1, dtype=np.int64)
    if not class_names:
        return Labels(none, f"the model has no card that names its classes; {_HINT}")
    index = {name: number for number, name in enumerate(class_names)}
    ids = np.array([index.get(path.parent.name, -1) for path in paths], dtype=np.int64)
    if (ids >= 0).all():
        return Labels(ids)
    first = paths[int(np.flatnonzero(ids < 0)[0])]
    missing = int((ids < 0).sum())
    return Labels(
        none,
        f"{missing:,} of {len(paths):,} images lie in folders that name no class of the model, "
        f"such as {first.parent.name!r}; {_HINT}",
    )


def pick_labelled(images: ImageSet, labels: LabelMap) -> tuple[ImageSet, Labels]:
    """Return the images that a class map labels, with their labels; the others are skipped. Raises
    InputError: it labels none; the message names key and file."""
    ids = np.array([labels.label(path) for path in images.paths], dtype=np.int64)
    missing = [path for path, one in zip(images.paths, ids, strict=True) if one < 0]
    if not missing:
        return images, Labels(ids)
    count = plural(len(images.paths), "image")
    such = f"such as {missing[0].parent.name}/{missing[0].name}"
    if len(missing) == len(images.paths):
        raise InputError(
            f"{KEY}: {labels.path} labels none of {count}, {such}: neither the folder's name nor "
            "the file's up to its first _ is one of its codes, such as "
            f"{next(iter(labels.ids))!r}"
        )
    why = f"{len(missing):,} of {count}: no label in {labels.path.name}, {such}"
    return images.without(missing, why), Labels(ids[ids >= 0])


def _number(path: Path, codes: list[Any]) -> dict[str, int]:
    """The class ids of a list of codes."""
    if not all(isinstance(code, str) for code in codes):
        raise InputError(f"{KEY}: {path}: {_WANTED}")
    if len(set(codes)) < len(codes):
        raise InputError(f"{KEY}: {path}: a code stands in the list twice; {_WANTED}")
    return {code: number for number, code in enumerate(codes)}
