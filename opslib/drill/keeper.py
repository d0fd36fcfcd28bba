"""A running service goes back to the model it was found with, however its drill ends, even by
SIGKILL: a process of its own sees to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opslib.core.config import Config, load_config
from opslib.core.errors import OpsError
from opslib.serving.client import ServiceClient, ServiceError
from opslib.serving.keys import KEY_VARIABLE

BUSY = (409, 429, 503)
_HOME = "home\n"
_LIMIT_S = 60.0
_POLL_S = 0.3
_MARGIN_S = 30.0


class Keeper:
    """The process that waits for the end of a drill; `home` says that nothing is left to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def home(self) -> None:
        """Say that the service is back on its model."""
        if self._process.stdin is not None:
            self._process.stdin.write(_HOME)
            self._process.stdin.flush()


@contextmanager
def keep_home(
    config: Config, url: str, key: str, path: str, folders: Sequence[Path]
) -> Iterator[Keeper]:
    """Bring the service at `url` back to the model at `path` after the block, unless it is home by
    then, and remove `folders`.

    Raises:
        OpsError: it does not go back; the message says what to do.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "opslib.drill.keeper", str(config.source), url, path]
        + [str(folder) for folder in folders],
        env=os.environ | {KEY_VARIABLE: key},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what ends the drill's whole group spares it
    )
    try:
        yield Keeper(process)
    finally:
        _, said = process.communicate(timeout=_LIMIT_S + _MARGIN_S)
        if process.returncode:
            raise OpsError(said.strip().rpartition("\n")[2] or f"{url}: its keeper ended badly")


def bring_home(config: Config, url: str, key: str, path: str, limit_s: float = _LIMIT_S) -> None:
    """Switch the service to the model at `path`.

    A switch that was asked for may still be under way: until it is over, asking is refused (409).

    Raises:
        OpsError: it does not go back; the message says what to do.
    """
    give_up = time.monotonic() + limit_s
    while True:
        try:
            with ServiceClient(url, key, config.client) as client:
                client.reload(path)
            return
        except ServiceError as error:
            if error.status not in BUSY or time.monotonic() > give_up:
                raise OpsError(
                    f"the drill was cut short and {url} may serve the wrong model: {error}; "
                    f"bring it back with `pillops reload --host {url} --path {path}`"
                ) from error
            time.sleep(_POLL_S)


def _main(source: str, url: str, path: str, *folders: str) -> int:
    is_home = sys.stdin.read().endswith(_HOME)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if is_home:
        return 0
    try:
        bring_home(load_config(Path(source)), url, os.environ[KEY_VARIABLE], path)
    except OpsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
