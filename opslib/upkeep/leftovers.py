"""Files, links and folders that writers of ours never finished: known by their names, old, and
written by nobody.

Earlier versions ended such a name with eight random characters, which a person's own backup may
have too (`.best.pt.20260930`): what has such a name is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import is_temporary
from opslib.core.plans import Action
from opslib.serving.leases import lease_folders
from opslib.upkeep.models_prune import QUANTIZED_FOLDER
from opslib.upkeep.open_files import is_written
from opslib.upkeep.rounds import Duty, Round, measure

LEFTOVERS = "leftovers"


def plan_leftovers(this: Round) -> Duty:
    """Plan which leftovers are deleted: of what was to appear whole (`core.files`)."""
    archive = this.config.logs_dir / "archive"
    old_days = this.config.maintenance.leftover_hours / 24
    actions = []
    for folder in _folders(this):
        # Nobody but a maintenance round, of which there is one at a time, writes archives.
        limit_days = -math.inf if folder == archive else old_days
        with storage_errors(f"read {this.name_of(folder)}"):
            found = sorted(path for path in folder.iterdir() if is_temporary(path.name))
            for path in found:
                if _is_abandoned(this, path, limit_days):
                    why = "left by a writer that died"
                    run = partial(_delete, this, path, limit_days)
                    size = path.lstat().st_size if _is_single(path) else measure(path)
                    actions.append(Action("delete", this.name_of(path), why, run, size))
    return Duty(LEFTOVERS, tuple(actions))


def _folders(this: Round) -> Iterator[Path]:
    config = this.config
    quantized = config.exp_dir / QUANTIZED_FOLDER
    folders = [
        config.exp_dir,
        config.logs_dir,
        config.logs_dir / "archive",
        config.logs_dir / "jobs",
        config.exp_dir / "checkpoints",
        config.export_dir,
        config.records_dir,
        config.releases_dir,
        config.restore_dir,
        config.report_dir,
        config.root,
        quantized,
        *sorted(quantized.glob("*/")),
        *lease_folders(config),
    ]
    for folder in dict.fromkeys(folders):
        try:
            if this.find_folder(folder).is_dir():
                yield folder
        except StorageError:
            continue  # its own duty says so


def _is_single(path: Path) -> bool:
    return path.is_symlink() or not path.is_dir()


def _is_abandoned(this: Round, path: Path, limit_days: float) -> bool:
    """Whether it and all in it are old, and nobody writes any of it."""
    paths = [path] if _is_single(path) else [path, *path.rglob("*")]
    newest = max(one.lstat().st_mtime for one in paths)
    if this.days_since(newest) <= limit_days:
        return False
    return not any(is_written(one) for one in paths if one.is_file() and not one.is_symlink())


def _delete(this: Round, path: Path, limit_days: float) -> None:
    this.find_folder(path.parent)
    with storage_errors(f"delete {this.name_of(path)}"):
        if not _is_abandoned(this, path, limit_days):
            raise StorageError("somebody writes it")
        if _is_single(path):
            size = path.lstat().st_size
            path.unlink()
            this.note_freed(path, size)
        else:
            this.delete_folder(path, path)
