"""Which model is in service: the state that survives a restart and that pruning must respect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from opslib.core.changes import change_file
from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.records import Part, Record

STATE_NAME = "served.json"
HISTORY_LENGTH = 10


class ServedModel(Part):
    """One model that was switched in: its file, digest, tag, generation and when."""

    path: Path
    sha256: str
    version_tag: str
    generation: int
    switched_at_utc: str


class ServedState(Record):
    """The model in service and those before it, the latest first."""

    schema_name = "served-state"

    current: ServedModel
    previous: tuple[ServedModel, ...] = ()

    def followed_by(self, model: ServedModel) -> ServedState:
        """Return the state after `model` was switched in; a model stands in the history once."""
        before = (self.current, *self.previous)
        others = tuple(one for one in before if one.sha256 != model.sha256)
        return ServedState(current=model, previous=others[:HISTORY_LENGTH])

    def needed(self) -> Iterator[tuple[Path, str]]:
        """Yield the models that must not be deleted, each with the reason."""
        yield self.current.path, "the last one switched in"
        for one in self.previous[:1]:
            yield one.path, "served before"


def served_state_path(config: Config) -> Path:
    """Return where the service keeps its state, `{exp_dir}/served.json`."""
    return config.exp_dir / STATE_NAME


def read_served_state(config: Config) -> ServedState | None:
    """Return the service's state, or None where no model was ever switched in.

    Raises:
        InputError: the file is there but cannot be read.
    """
    path = served_state_path(config)
    return ServedState.read(path) if os.path.lexists(path) else None


def keep_served(config: Config, model: ServedModel) -> None:
    """Keep that `model` was switched in, ahead of those before it; a state that cannot be read is
    begun anew.

    Raises:
        BusyError: another process is changing a file of the experiment's folder.
        StorageError: the state cannot be written.
    """

    def change(_: bytes | None) -> bytes:
        try:
            before = read_served_state(config)
        except InputError:
            before = None
        state = before.followed_by(model) if before else ServedState(current=model)
        return state.to_json().encode()

    change_file(served_state_path(config), change)
