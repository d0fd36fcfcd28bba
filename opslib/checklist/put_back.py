"""Putting things back however a rehearsal ends, even by SIGKILL: a process of its own sees to it.

It notes how things are, waits until the rehearsal closes its standard input or dies, and makes
them what they were.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from opslib.core.config import Config, load_config
from opslib.core.errors import OpsError
from opslib.core.files import write_bytes_atomic
from opslib.core.locks import hold_lock
from opslib.core.served import served_state_path
from opslib.upkeep.crontab import read_crontab, take_apart, write_crontab
from opslib.upkeep.schedule import crontab_lock

Thing = Literal["schedules", "served"]
_NOTED = "noted\n"
_LIMIT_S = 60.0


@contextmanager
def put_back(config: Config, thing: Thing) -> Iterator[None]:
    """Leave the experiment's schedules, or which model it serves, after the block as before it.

    Raises:
        OpsError: it cannot be read, or not be put back.
    """
    keeper = subprocess.Popen(
        [sys.executable, "-m", "opslib.checklist.put_back", str(config.source), thing],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what ends the rehearsal's whole group spares it
    )
    try:
        if keeper.stdout is not None and keeper.stdout.readline() == _NOTED:
            yield
    finally:
        _, said = keeper.communicate(timeout=_LIMIT_S)
        if keeper.returncode:
            raise OpsError(f"{thing}: not put back: {' '.join(said.split())}")


def _note_schedules(config: Config) -> Callable[[], None]:
    owner = str(config.source)
    block = take_apart(read_crontab(), owner).block

    def restore() -> None:
        with hold_lock(crontab_lock(), "changing the crontab", wait_s=_LIMIT_S / 2):
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


def _main(source: str, thing: str) -> int:
    try:
        note = {"schedules": _note_schedules, "served": _note_served}[thing]
        restore = note(load_config(Path(source)))
        sys.stdout.write(_NOTED)
        sys.stdout.flush()
        sys.stdin.read()
        restore()
    except (OpsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
