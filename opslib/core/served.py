"""Which model is in service: the state that survives a restart and that pruning must respect."""

from __future__ import annotations

import os
from pathlib import Path

from opslib.core.config import Config
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
