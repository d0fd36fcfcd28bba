"""Putting things back however a rehearsal ends: how they were is noted before it begins."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from opslib.core.aftercare import start_aftercare, take_care
from opslib.core.changes import change_file, sole_writer
from opslib.core.config import Config, load_config
from opslib.core.served import served_state_path
from opslib.upkeep.crontab import hold_crontab, read_crontab, replace_crontab, take_apart

Thing = Literal["schedules", "served"]


def put_back(config: Config, thing: Thing) -> AbstractContextManager[object]:
    """Leave the experiment's schedules, or which model it serves, after the block as before it.
    Raises OpsError: it cannot be read, or not be put back."""
    return start_aftercare("opslib.ops.acceptance.put_back", str(config.source), thing)


def _note_schedules(config: Config) -> Callable[[], None]:
    owner = str(config.source)
    block = take_apart(read_crontab(), owner).block

    def restore() -> None:
        with hold_crontab():
            text = read_crontab()
            parts = take_apart(text, owner)
            if parts.block != block:
                before = parts.without_block() if block is None else parts.with_block(block)
                replace_crontab(text, before, config.logs_dir)

    return restore


def _note_served(config: Config) -> Callable[[], None]:
    path = served_state_path(config)
    state = path.read_bytes() if path.exists() else None

    def restore() -> None:
        if state is not None:
            change_file(path, lambda _: state)
            return
        with sole_writer(path):
            path.unlink(missing_ok=True)

    return restore


def _prepare(source: str, thing: str) -> Callable[[], None]:
    note = {"schedules": _note_schedules, "served": _note_served}[thing]
    return note(load_config(Path(source)))


if __name__ == "__main__":
    sys.exit(take_care(lambda: _prepare(*sys.argv[1:]), f"{sys.argv[2]}: not put back: "))
