"""Hidden temporary files of writers that died: known by their names, old, written by nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from opslib.core.errors import StorageError, storage_errors
from opslib.core.plans import Action
from opslib.upkeep.models_prune import QUANTIZED_FOLDER
from opslib.upkeep.open_files import is_written
from opslib.upkeep.rounds import Duty, Entry, Round, list_files, measure

LEFTOVERS = "leftovers"
# Eight random characters; where all are letters it may be a word, and the file a person's own.
_RANDOM = r"\.(?=[a-z]*[0-9_])[a-z0-9_]{8}"
_ANY = r"\.[a-z0-9_]{8}"  # where the name before it is nobody's but ours
_FILE = re.compile(
    rf"\..+\.(gz|json|jsonl|onnx|data|pt|txt|sha256|html|ipynb){_RANDOM}|\..+\.rotating\.json{_ANY}"
)
_ARCHIVE = re.compile(rf"\..+\.gz{_ANY}")
_FOLDER = re.compile(rf"\.(copying|release-\d{{8}}-\d{{6}}-\w+){_RANDOM}|\.drill-[0-9a-f]{{8}}")


def plan_leftovers(this: Round) -> Duty:
    """Plan which leftovers are deleted: of files that were to appear whole (`core.files`), and of
    folders that were to be filled.

    Raises:
        StorageError: a folder cannot be read.
    """
    limit_days = this.config.maintenance.leftover_hours / 24
    archive = this.config.logs_dir / "archive"
    actions = []
    for folder in _folders(this):
        for entry in list_files(folder, (_ARCHIVE if folder == archive else _FILE).fullmatch):
            # Nobody but a maintenance round, of which there is one at a time, writes archives.
            old = folder == archive or this.age_days(entry) > limit_days
            if old and not is_written(entry.path):
                why = "left by a writer that died"
                run = partial(_delete_file, this, entry)
                name = this.name_of(entry.path)
                actions.append(Action("delete", name, why, run, entry.size_bytes))
        for path in folder.iterdir() if folder.is_dir() else ():
            if _FOLDER.fullmatch(path.name) and _is_abandoned(this, path, limit_days):
                why = "left by a writer that died"
                run = partial(_delete_folder, this, path, limit_days)
                actions.append(Action("delete", this.name_of(path), why, run, measure(path)))
    return Duty(LEFTOVERS, tuple(actions))


def _folders(this: Round) -> Iterator[Path]:
    config = this.config
    folders = [
        config.exp_dir,
        config.logs_dir,
        config.logs_dir / "archive",
        config.exp_dir / "checkpoints",
        config.export_dir,
        config.records_dir,
        config.releases_dir,
        config.restore_dir,
        *sorted((config.exp_dir / QUANTIZED_FOLDER).glob("*/")),
    ]
    for folder in dict.fromkeys(folders):
        try:
            yield this.find_folder(folder)
        except StorageError:
            continue  # its own duty says so


def _is_abandoned(this: Round, folder: Path, limit_days: float) -> bool:
    """Whether a folder and all in it are old, and nobody writes any of it."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    paths = [folder, *folder.rglob("*")]
    newest = max(path.lstat().st_mtime for path in paths)
    if this.days_since(newest) <= limit_days:
        return False
    return not any(is_written(path) for path in paths if path.is_file() and not path.is_symlink())


def _delete_file(this: Round, entry: Entry) -> None:
    with storage_errors(f"delete {this.name_of(entry.path)}"):
        if is_written(entry.path):
            raise StorageError("somebody writes it")
    this.delete(entry)


def _delete_folder(this: Round, folder: Path, limit_days: float) -> None:
    this.find_folder(folder)
    with storage_errors(f"delete {this.name_of(folder)}"):
        if not _is_abandoned(this, folder, limit_days):
            raise StorageError("it changed after the plan was made")
    this.delete_folder(folder, folder)
