"""Checkpoints: those that training leaves on its way and that grew old; never a best one, nor what
a kept model came from."""

from __future__ import annotations

from collections.abc import Container
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from opslib.core.cards import REPORT_NAME, card_path
from opslib.core.clock import part_ahead
from opslib.core.errors import StorageError
from opslib.core.lately import Lately
from opslib.upkeep.in_use import InUse, find_in_use, list_models, read_field
from opslib.upkeep.models_prune import QUANTIZED_FOLDER, ModelShelf
from opslib.upkeep.rounds import Duty, Entry, Round, by_age, list_files

CHECKPOINTS = "checkpoints"
_BEST = "best"


def plan_checkpoints(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which checkpoints are deleted (`maintenance.checkpoint_patterns`); the newest of each
    pattern is always kept, and what is dated after now is not it."""
    limit = this.config.maintenance.checkpoint_days
    found, kept, ahead = dict[Path, Entry](), set[Path](), dict[Path, None]()
    for pattern in this.config.maintenance.checkpoint_patterns:
        past, later = part_ahead(_list(this, pattern), lambda entry: entry.mtime_ns / 1e9, this.now)
        found |= {entry.path: entry for entry in past}
        kept |= {entry.path for entry in past[-1:]}
        ahead |= dict.fromkeys(entry.path for entry in later)
    named = _find_named(this, shelf.going)
    used = Lately(lambda: (find_in_use(this), _find_named(this)))
    actions = []
    for entry in sorted(found.values(), key=by_age):
        age = this.age_days(entry)
        name = entry.path.name
        if entry.path in kept or _BEST in name or age <= limit or name in named:
            continue
        if shelf.in_use.why(entry.path) is not None:
            continue
        why = f"written {age:.0f} days ago, kept {limit}; not the newest and not in use"
        actions.append(this.deletion(entry, why, partial(_delete, this, used, entry)))
    return Duty(CHECKPOINTS, tuple(actions), notes=this.note_ahead(ahead))


def _list(this: Round, pattern: str) -> list[Entry]:
    """The files of a pattern, the oldest first."""
    where = this.config.exp_dir / pattern
    folder = this.find_folder(where.parent)
    return sorted(list_files(folder, lambda name: fnmatchcase(name, where.name)), key=by_age)


def _find_named(this: Round, going: Container[Path] = ()) -> dict[str, str]:
    """Return the file names of checkpoints that the export report and the cards of models name,
    but for models that are `going`, with the reason.

    Raises:
        StorageError: one of them is there but cannot be read.
    """
    found = {}
    report = read_field(this.config.export_dir / REPORT_NAME, "ckpt_path")
    if report is not None:
        found[Path(report).name] = f"{REPORT_NAME} names it"
    folders = [this.config.export_dir, *(this.config.exp_dir / QUANTIZED_FOLDER).glob("*/")]
    for model in (path for folder in folders for path in list_models(folder)):
        named = read_field(card_path(model), "ckpt_path") if model not in going else None
        if named is not None:
            found.setdefault(Path(named).name, f"{model.name} was made from it")
    return found


def _delete(this: Round, used: Lately[tuple[InUse, dict[str, str]]], entry: Entry) -> None:
    in_use, named = used.get()
    why = in_use.why(entry.path) or named.get(entry.path.name)
    if why is not None:
        raise StorageError(f"it is in use by now: {why}")
    this.delete(entry)
