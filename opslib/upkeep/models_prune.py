"""Models: those in use are kept, then the newest; the rest goes with its weights and its card.
Checkpoints: those that training leaves on its way and that grew old; never a best one, nor what a
kept model came from."""

import os
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from opslib.core.cards import REPORT_NAME, card_path
from opslib.core.clock import part_ahead
from opslib.core.config_edit import on_one_line
from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import reveal_name
from opslib.core.formatting import plural
from opslib.core.kinds import list_kinds
from opslib.core.lately import Lately
from opslib.core.plans import Action
from opslib.inference.find_model import model_moment
from opslib.upkeep.claims import Claim, Claims
from opslib.upkeep.in_use import InUse, Units, find_in_use, list_models, read_field
from opslib.upkeep.rounds import KILLED, Duty, Entry, Round, by_age, list_files, look_at

MODELS, QUANTIZED, CHECKPOINTS = "models", "quantized", "checkpoints"
_BEST = "best"
QUANTIZED_FOLDER = "quantized"


@dataclass(frozen=True)
class ModelShelf:
    """What is known while models are chosen and deleted: which are in use, what belongs to each,
    and which are going by the plan."""

    this: Round
    in_use: InUse
    units: Units = field(default_factory=Units)
    going: set[Path] = field(default_factory=set)
    needed: dict[Path, tuple[tuple[int, int], set[Path]]] = field(default_factory=dict)

    def delete(self, claim: Claim, hidden: Path) -> None:
        """Delete a hidden model with what belongs to it alone.

        Its hidden name is the last thing to go, so that a later run finishes what a killed one
        began. Where its own name is taken anew meanwhile, what lies beside it is the newcomer's.
        """
        this, model, folder = self.this, claim.path, claim.path.parent
        with storage_errors(f"delete {this.name_of(model)}"):
            own = self.units.deletable(hidden, self._needed_in(folder), model.name)
            for path in (*(() if os.path.lexists(model) else own), hidden):
                freed = path.stat().st_size
                path.unlink()
                this.note_freed(claim.target, freed)
            self.needed[folder] = (_stamp(folder), self.needed[folder][1])
            if folder.parent == this.config.exp_dir / QUANTIZED_FOLDER:
                with suppress(OSError):
                    folder.rmdir()

    def _needed_in(self, folder: Path) -> set[Path]:
        """What the models of a folder need; looked up anew where others changed the folder."""
        stamp = _stamp(folder)
        if self.needed.get(folder, (None,))[0] != stamp:
            self.needed[folder] = (stamp, self.units.needed_by(list_models(folder)))
        return self.needed[folder][1]

    def find_use(self, model: Path, in_use: InUse, place: Path) -> str | None:
        """Return why a model is in use, or None; by what is in it too, as long as it is there."""
        return in_use.why(model, self.units if place == model else None)


def plan_models(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which exported models of each kind are deleted; see `maintenance.keep_onnx`. What is of
    no kind stays: nobody knows what it is for."""
    folder = this.find_folder(this.config.export_dir)
    there = list_models(folder)
    models, ahead = part_ahead(there, model_moment, this.now)
    kinds = list_kinds(this.config)
    claims = Claims(this)
    actions, notes = _finish(shelf, claims, folder), list[str]()
    for kind in kinds:
        of_kind = [path for path in models if kind.has(path.name)]
        going = _choose(shelf, of_kind, kind.keep)
        what = "" if kind.sole else f" {kind.name} models"
        why = f"beyond the newest {kind.keep}{what}, and not in use"
        actions += _delete(shelf, claims, there, going, why)
        if going:
            kept = plural(len(of_kind) - len(going), "model" if kind.sole else f"{kind.name} model")
            notes.append(f"{kept} kept in {this.name_of(folder)}")
    strays = [path for path in models if not any(kind.has(path.name) for kind in kinds)]
    if strays:
        rest = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        shown = f"{this.name_of(strays[0])}{rest}"
        notes.append(f"of no kind under `models:`, or of several, and kept: {shown}")
    return Duty(MODELS, tuple(actions), notes=(*notes, *this.note_ahead(ahead)))


def plan_quantized(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which kept INT8 variants are deleted: old ones of models that are no longer exported."""
    home = this.find_folder(this.config.exp_dir / QUANTIZED_FOLDER)
    limit = this.config.maintenance.quantized_days
    exported = {path.stem for path in list_models(this.config.export_dir)}
    claims, actions = Claims(this), list[Action]()
    for folder in sorted(home.iterdir()) if home.is_dir() else ():
        if folder.is_symlink() or not folder.is_dir():
            continue
        actions += _finish(shelf, claims, folder)
        if folder.name in exported:
            continue
        models = list_models(folder)
        old = [path for path in models if this.age_days(look_at(path)) > limit]
        going = [path for path in old if shelf.in_use.why(path) is None]
        why = f"{folder.name} is no longer exported, and it is over {limit} days old"
        actions += _delete(shelf, claims, models, going, why)
    return Duty(QUANTIZED, tuple(actions))


def _choose(shelf: ModelShelf, models: list[Path], keep: int) -> list[Path]:
    """The oldest models beyond `keep` that are not in use; what is in use counts among the kept."""
    used = {path for path in models if shelf.in_use.why(path) is not None}
    while True:
        spare = [path for path in models if path not in used]
        room = max(0, keep - len(used))
        going = spare[: max(0, len(spare) - room)]
        known = {path for path in going if shelf.in_use.why(path, shelf.units) is not None}
        if not known:
            return going
        used |= known


def _delete(
    shelf: ModelShelf, claims: Claims, models: list[Path], going: list[Path], why: str
) -> list[Action]:
    """Steps that delete these models of a folder, the oldest first."""
    shelf.going.update(going)
    needed = shelf.units.needed_by([path for path in models if path not in shelf.going])
    actions = []
    for path in going:
        entry = look_at(path)
        files = shelf.units.deletable(path, needed)
        needed.update(one.resolve() for one in files)  # weights of two models are counted once
        freed = entry.size_bytes + sum(one.stat().st_size for one in files)
        extra = f", with {', '.join(on_one_line(one.name) for one in files)}" if files else ""
        claim = Claim(path, partial(shelf.find_use, path), partial(_check_unchanged, entry))
        actions.append(claims.plan(claim, shelf.delete, why + extra, freed))
    return actions


def _stamp(folder: Path) -> tuple[int, int]:
    seen = folder.stat()
    return seen.st_mtime_ns, seen.st_ctime_ns


def _check_unchanged(entry: Entry) -> None:
    if look_at(entry.path) != entry:
        raise StorageError("it changed after the plan was made")


def _finish(shelf: ModelShelf, claims: Claims, folder: Path) -> list[Action]:
    """Steps for models whose deletion was begun by a run that was killed."""
    actions = []
    for entry in list_files(folder, lambda name: reveal_name(name, "deleted")):
        model = folder / (reveal_name(entry.path.name, "deleted") or "")
        claim = Claim(model, partial(shelf.find_use, model), hidden=entry.path)
        actions.append(claims.plan(claim, shelf.delete, KILLED, entry.size_bytes))
    return actions


def plan_checkpoints(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which checkpoints are deleted (`maintenance.checkpoint_patterns`); the newest of each
    pattern is always kept, and what is dated after now is not it."""
    limit = this.config.maintenance.checkpoint_days
    found, kept, ahead = dict[Path, Entry](), set[Path](), dict[Path, None]()
    for pattern in this.config.maintenance.checkpoint_patterns:
        past, later = part_ahead(
            _list_pattern(this, pattern), lambda entry: entry.mtime_ns / 1e9, this.now
        )
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
        actions.append(this.deletion(entry, why, partial(_delete_checkpoint, this, used, entry)))
    return Duty(CHECKPOINTS, tuple(actions), notes=this.note_ahead(ahead))


def _list_pattern(this: Round, pattern: str) -> list[Entry]:
    """The files of a pattern, the oldest first."""
    where = this.config.exp_dir / pattern
    folder = this.find_folder(where.parent)
    return sorted(list_files(folder, lambda name: fnmatchcase(name, where.name)), key=by_age)


def _find_named(this: Round, going: Container[Path] = ()) -> dict[str, str]:
    """Return the file names of checkpoints that the export report and the cards of models name, but
    for models that are `going`, with the reason. Raises `StorageError` where one of them is there
    but cannot be read."""
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


def _delete_checkpoint(
    this: Round, used: Lately[tuple[InUse, dict[str, str]]], entry: Entry
) -> None:
    in_use, named = used.get()
    why = in_use.why(entry.path) or named.get(entry.path.name)
    if why is not None:
        raise StorageError(f"it is in use by now: {why}")
    this.delete(entry)
