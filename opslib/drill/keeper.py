"""A running service goes back to the model it was found with, however its drill ends."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from opslib.core.aftercare import start_aftercare, take_care
from opslib.core.config import Config, load_config
from opslib.core.errors import OpsError
from opslib.drill.target import Target
from opslib.serving.client import ServiceClient, ServiceError
from opslib.serving.keys import KEY_VARIABLE

BUSY = (409, 429, 503)
_LIMIT_S = 60.0
_POLL_S = 0.3


def keep_home(target: Target) -> AbstractContextManager[Callable[[], None]]:
    """Bring a running service back to its stable model after the block, and remove the bad ones
    made for it; what the block gets says that the service is home already.

    A staging service ends with its drill and is left alone.

    Raises:
        OpsError: it does not go back; the message says what to do.
    """
    if target.staged is not None:
        return nullcontext(lambda: None)
    folders = [str(folder) for folder in target.ground or ()]
    return start_aftercare(
        "opslib.drill.keeper",
        *(str(target.config.source), target.url, str(target.stable), *folders),
        variables={KEY_VARIABLE: target.key},
    )


def bring_home(config: Config, url: str, key: str, path: str) -> None:
    """Switch the service to the model at `path`.

    A switch that was asked for may still be under way: until it is over, asking is refused (409).

    Raises:
        OpsError: it does not go back; the message says what to do.
    """
    give_up = time.monotonic() + _LIMIT_S
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


def _prepare(source: str, url: str, path: str, *folders: str) -> Callable[[], None]:
    config, key = load_config(Path(source)), os.environ[KEY_VARIABLE]

    def work() -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        bring_home(config, url, key, path)

    return work


if __name__ == "__main__":
    sys.exit(take_care(lambda: _prepare(*sys.argv[1:])))
