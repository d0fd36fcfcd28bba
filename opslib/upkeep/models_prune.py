"""Models: those in use are kept, then the newest; the rest goes with its weights and its card."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from opslib.core.clock import part_ahead
from opslib.core.config_edit import on_one_line
from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import reveal_name
from opslib.core.formatting import plural
from opslib.core.kinds import list_kinds
from opslib.core.plans import Action
from opslib.inference.find_model import model_moment
from opslib.upkeep.claims import Claim, Claims
from opslib.upkeep.in_use import InUse, Units, list_models
from opslib.upkeep.rounds import KILLED, Duty, Entry, Round, list_files, look_at

MODELS, QUANTIZED = "models", "quantized"
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
