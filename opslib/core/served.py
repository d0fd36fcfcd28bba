"""Which model is in service: the state that survives a restart and that pruning must respect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from opslib.core.changes import change_file
from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.files import write_bytes_atomic
from opslib.core.records import Part, Record

STATE_NAME = "served.json"
HISTORY_LENGTH = 10
ONLY_KIND = "model"  # as a kind is called where there are no others


class ServedModel(Part):
    """One model that was switched in: its file, digest, tag, generation and when."""

    path: Path
    sha256: str
    version_tag: str
    generation: int
    switched_at_utc: str


class WantedModel(Part):
    """A model that should be served: its file and tag, its digest where known, and who says so.

    Without a path it is not known which one should be: the state could not be read.
    """

    path: Path | None
    version_tag: str | None
    sha256: str | None = None
    why: str


class ServedState(Record):
    """The model in service and those before it, the latest first.

    `wanted` is the one that should be in service instead, where it could not be; a start tries it
    first, so that it is not forgotten for the one that stood in.
    """

    schema_name = "served-state"

    current: ServedModel
    previous: tuple[ServedModel, ...] = ()
    wanted: WantedModel | None = Field(default=None, exclude_if=lambda value: value is None)

    def followed_by(self, model: ServedModel, wanted: WantedModel | None = None) -> ServedState:
        """Return the state after `model` was switched in; a model stands in the history once."""
        before = (self.current, *self.previous)
        others = tuple(one for one in before if one.sha256 != model.sha256)
        return ServedState(current=model, previous=others[:HISTORY_LENGTH], wanted=wanted)

    def wanted_path(self) -> Path | None:
        """Return where the model lies that should be in service instead, or None. Raises
        `InputError` where there is one, and nobody knows which."""
        if self.wanted is not None and self.wanted.path is None:
            raise InputError(
                f"{STATE_NAME}: which model should be served is not known ({self.wanted.why}); "
                "switch to it: `pillops reload --path MODEL`"
            )
        return self.wanted.path if self.wanted else None

    def needed(self) -> Iterator[tuple[Path, str]]:
        """Yield the models that must not be deleted, each with the reason. Raises `InputError`
        where there is one that should be served, and nobody knows which."""
        yield self.current.path, "the last one switched in"
        for one in self.previous[:1]:
            yield one.path, "served before"
        wanted = self.wanted_path()
        if wanted is not None:
            yield wanted, "it should be served"


class ServedNote(Part):
    """Which model of a kind a host serves, as its records tell others: no path of that host.
    `since_utc` is when it was switched in, where that is known; `sha256` may be its first digits
    alone."""

    kind: str
    name: str
    sha256: str | None
    version_tag: str | None = None
    since_utc: str | None = None


def note_served(config: Config) -> ServedNote | None:
    """Return which model was switched in last, or None where none was or nobody can tell."""
    try:
        state = read_served_state(config)
    except InputError:
        return None
    if state is None:
        return None
    one = state.current
    return ServedNote(
        kind=ONLY_KIND,
        name=one.path.name,
        sha256=one.sha256,
        version_tag=one.version_tag,
        since_utc=one.switched_at_utc,
    )


def served_state_path(config: Config) -> Path:
    """Return where the service keeps its state, `{exp_dir}/served.json`."""
    return config.exp_dir / STATE_NAME


def read_served_state(config: Config) -> ServedState | None:
    """Return the service's state, or None where no model was ever switched in. Raises `InputError`
    where the file is there but cannot be read."""
    path = served_state_path(config)
    return ServedState.read(path) if os.path.lexists(path) else None


def keep_served(config: Config, model: ServedModel, wanted: WantedModel | None = None) -> None:
    """Keep that `model` was switched in, ahead of those before it.

    A state that cannot be read is set aside as `served.json.damaged` and begun anew. `wanted`: the
    model that should be served instead, where it could not be. Raises `BusyError` where another
    process is changing a file of the experiment's folder; `StorageError` where the state cannot be
    written.
    """
    path = served_state_path(config)

    def change(found: bytes | None) -> bytes:
        try:
            before = read_served_state(config)
        except InputError:
            before = None
            write_bytes_atomic(path.with_name(f"{path.name}.damaged"), found or b"")
        state = before or ServedState(current=model)
        return state.followed_by(model, wanted).to_json().encode()

    change_file(path, change)
