"""A copy of the experiment that a staging service may change: two models and a configuration."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from opslib.core.cards import REPORT_NAME, ModelCard, card_path, read_card, read_export_report
from opslib.core.config import Config
from opslib.core.errors import storage_errors
from opslib.core.files import link_atomic
from opslib.core.models import find_model_files
from opslib.ops.quantize.source import copy_source

COPIES = 2


@dataclass(frozen=True)
class Copied:
    """The copy: its configuration, the model to begin with, and further copies of both models.

    A copy under another path is not the one that a service keeps loaded, so that switching to it
    takes a full load with all checks.
    """

    config_path: Path
    stable: Path
    stable_copies: tuple[Path, ...]
    other_copies: tuple[Path, ...]

    @property
    def export_dir(self) -> Path:
        """The folder that the service takes models from."""
        return self.stable.parent


def copy_experiment(config: Config, stable: Path, other: Path, folder: Path) -> Copied:
    """Copy two models with all that belongs to them into `folder`, and a configuration that is
    the given one but for the places.

    Raises:
        ModelError: a model or its sidecar is missing or damaged.
        InputError: so is its card.
        StorageError: `folder` cannot be written.
    """
    export = folder / "exp" / "export"
    with storage_errors(f"copy the models into {folder}"):
        begin = copy_unit(stable, export)
        link_atomic(export / "latest.onnx", begin.name)
        report = config.export_dir / REPORT_NAME
        if read_export_report(config.export_dir) is not None:
            shutil.copyfile(report, export / report.name)
        names = range(1, COPIES + 1)
        stable_copies = tuple(copy_unit(stable, export / f"stable-{one}") for one in names)
        other_copies = tuple(copy_unit(other, export / f"other-{one}") for one in names)
    return Copied(_write_config(config, folder), begin, stable_copies, other_copies)


def copy_unit(model: Path, folder: Path) -> Path:
    """Copy a model with its sidecars, its card and its golden images; return the new path."""
    source = find_model_files(model).path
    copy, card = copy_source(source, folder), read_card(source)
    if card is not None:
        _copy_golden(card, source.parent, folder).write(card_path(copy))
    return copy


def _copy_golden(card: ModelCard, source: Path, folder: Path) -> ModelCard:
    """Copy the card's golden images, wherever they lie, and return the card that names them."""
    names = {}
    for number, answer in enumerate(card.golden_images):
        names[answer.image] = f"golden/{number}-{Path(answer.image).name}"
        (folder / "golden").mkdir(exist_ok=True)
        shutil.copyfile(source / answer.image, folder / names[answer.image])
    changed: dict[str, object] = {}
    for field in ("golden", "golden_outputs"):
        found = getattr(card, field)
        changed[field] = tuple(one.model_copy(update={"image": names[one.image]}) for one in found)
    return card.model_copy(update=changed)


def _write_config(config: Config, folder: Path) -> Path:
    content = config.model_dump(mode="json", exclude={"source"})
    content["paths"] |= {
        "exp_dir": str(folder / "exp"),
        "data_root": str(config.data_root),
        "code_root": str(config.code_root) if config.code_root else None,
        "report_dir": str(folder / "reports"),
    }
    content["export"]["out_dir"] = None
    content["models"] = {}  # of whatever kind the two are, the copy has no other
    content["reload"] |= {"model_dirs": [], "restore_dir": None}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
