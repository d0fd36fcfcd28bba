"""Putting things back however a rehearsal ends: how they were is noted before it begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from opslib.core.aftercare import start_aftercare, take_care
from opslib.core.config import Config, load_config
from opslib.core.files import write_bytes_atomic
from opslib.core.locks import hold_lock
from opslib.core.served import served_state_path
from opslib.upkeep.crontab import read_crontab, take_apart, write_crontab
from opslib.upkeep.schedule import crontab_lock

Thing = Literal["schedules", "served"]
_LOCK_S = 30.0


def put_back(config: Config, thing: Thing) -> AbstractContextManager[object]:
    """Leave the experiment's schedules, or which model it serves, after the block as before it.

    Raises:
        OpsError: it cannot be read, or not be put back.
    """
    return start_aftercare("opslib.checklist.put_back", str(config.source), thing)


def _note_schedules(config: Config) -> Callable[[], None]:
    owner = str(config.source)
    block = take_apart(read_crontab(), owner).block

    def restore() -> None:
        with hold_lock(crontab_lock(), "changing the crontab", wait_s=_LOCK_S):
            parts = take_apart(read_crontab(), owner)
            if parts.block != block:
                write_crontab(parts.without_block() if block is None else parts.with_block(block))

    return restore


def _note_served(config: Config) -> Callable[[], None]:
    path = served_state_path(config)
    state = path.read_bytes() if path.exists() else None

    def restore() -> None:
        if state is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != state:
            write_bytes_atomic(path, state)

    return restore


def _prepare(source: str, thing: str) -> Callable[[], None]:
    note = {"schedules": _note_schedules, "served": _note_served}[thing]
    return note(load_config(Path(source)))


if __name__ == "__main__":
    sys.exit(take_care(lambda: _prepare(*sys.argv[1:]), f"{sys.argv[2]}: not put back: "))
