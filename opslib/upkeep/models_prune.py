"""Models: those in use are kept, then the newest; the rest goes with its weights and its card."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from opslib.core.clock import part_ahead
from opslib.core.config_edit import on_one_line
from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import fsync_folder, hide_name, reveal_name
from opslib.core.formatting import plural
from opslib.core.plans import Action
from opslib.inference.find_model import model_moment
from opslib.serving.reachable import LiveModel
from opslib.upkeep.in_use import Digests, InUse, Units, find_in_use, list_models
from opslib.upkeep.rounds import Duty, Entry, Round, list_files, look_at, put_back

MODELS, QUANTIZED = "models", "quantized"
QUANTIZED_FOLDER = "quantized"


@dataclass(frozen=True)
class ModelShelf:
    """What is known while models are chosen and deleted: which are in use, what belongs to each,
    and which are going by the plan."""

    this: Round
    in_use: InUse
    units: Units = field(default_factory=Units)
    digests: Digests = field(default_factory=Digests)
    going: set[Path] = field(default_factory=set)

    def delete(self, entry: Entry) -> None:
        """Delete a model with what belongs to it alone, unless it is in use by now.

        It is hidden first and its hidden name is the last thing to go, so that a later run
        finishes what a killed one began. Whoever says before then that it uses the model gets it
        back; whoever says so later finds it gone before it has used it.

        Raises:
            StorageError: it is in use, it changed after the plan was made, or the disk refuses.
        """
        this, model = self.this, entry.path
        this.find_folder(model.parent)
        in_use = find_in_use(this)
        why = in_use.why(model, self.digests)
        if why is not None:
            raise StorageError(f"it is in use by now: {why}")
        hidden = hide_name(model, "deleted")
        with storage_errors(f"delete {this.name_of(model)}"):
            if look_at(model) != entry:
                raise StorageError("it changed after the plan was made")
            model.rename(hidden)
            fsync_folder(model.parent)
        self.finish_deletion(hidden, in_use.live)

    def finish_deletion(self, hidden: Path, live: tuple[LiveModel, ...] | None = None) -> None:
        """Delete what is left of a model that was hidden before, or give it its name back where
        it is in use.

        Args:
            live: what services said a moment ago; they are asked where it is not given.

        Raises:
            StorageError: it is in use, or the disk refuses.
        """
        folder, name = hidden.parent, reveal_name(hidden.name, "deleted") or hidden.name
        why = find_in_use(self.this, live).why(folder / name)
        if why is not None:
            put_back(hidden, folder / name)
            raise StorageError(f"it is in use by now and was put back: {why}")
        with storage_errors(f"delete {self.this.name_of(folder / name)}"):
            needed = self.units.needed_by(list_models(folder))
            for path in (*self.units.deletable(hidden, needed, name), hidden):
                freed = path.stat().st_size
                path.unlink()
                self.this.note_freed(folder / name, freed)
            if folder.parent == self.this.config.exp_dir / QUANTIZED_FOLDER:
                with suppress(OSError):
                    folder.rmdir()


def plan_models(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which exported models are deleted; see `maintenance.keep_onnx`.

    Raises:
        StorageError: the folder cannot be read, or a link leads out of the experiment.
    """
    folder = this.find_folder(this.config.export_dir)
    keep = this.config.maintenance.keep_onnx
    models, ahead = part_ahead(list_models(folder), model_moment, this.now)
    going = _choose(shelf, models, keep)
    why = f"beyond the newest {keep}, and not in use"
    actions = [*_finish(this, shelf, folder), *_delete(this, shelf, [*models, *ahead], going, why)]
    kept = len(models) - len(going)
    notes = (f"{plural(kept, 'model')} kept in {this.name_of(folder)}",) if going else ()
    return Duty(MODELS, tuple(actions), notes=notes + this.note_ahead(ahead))


def plan_quantized(this: Round, shelf: ModelShelf) -> Duty:
    """Plan which kept INT8 variants are deleted: old ones of models that are no longer exported.

    Raises:
        StorageError: a folder cannot be read, or a link leads out of the experiment.
    """
    home = this.find_folder(this.config.exp_dir / QUANTIZED_FOLDER)
    limit = this.config.maintenance.quantized_days
    exported = {path.stem for path in list_models(this.config.export_dir)}
    actions = []
    for folder in sorted(home.iterdir()) if home.is_dir() else ():
        if folder.is_symlink() or not folder.is_dir():
            continue
        actions += _finish(this, shelf, folder)
        if folder.name in exported:
            continue
        models = list_models(folder)
        old = [path for path in models if this.age_days(look_at(path)) > limit]
        going = [path for path in old if shelf.in_use.why(path) is None]
        why = f"{folder.name} is no longer exported, and it is over {limit} days old"
        actions += _delete(this, shelf, models, going, why)
    return Duty(QUANTIZED, tuple(actions))


def _choose(shelf: ModelShelf, models: list[Path], keep: int) -> list[Path]:
    """The oldest models beyond `keep` that are not in use; what is in use counts among the kept."""
    used = {path for path in models if shelf.in_use.why(path) is not None}
    while True:
        spare = [path for path in models if path not in used]
        room = max(0, keep - len(used))
        going = spare[: max(0, len(spare) - room)]
        known = {path for path in going if shelf.in_use.why(path, shelf.digests) is not None}
        if not known:
            return going
        used |= known


def _delete(
    this: Round, shelf: ModelShelf, models: list[Path], going: list[Path], why: str
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
        run = partial(shelf.delete, entry)
        actions.append(Action("delete", this.name_of(path), why + extra, run, freed))
    return actions


def _finish(this: Round, shelf: ModelShelf, folder: Path) -> list[Action]:
    """Steps for models whose deletion was begun by a run that was killed."""
    return [
        Action(
            "delete",
            this.name_of(entry.path),
            "a run was killed while it deleted it",
            partial(shelf.finish_deletion, entry.path),
            entry.size_bytes,
        )
        for entry in list_files(folder, lambda name: reveal_name(name, "deleted"))
    ]
