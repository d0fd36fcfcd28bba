"""A running service goes back to the model it was found with, however its drill ends."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from opslib.core.aftercare import start_aftercare, take_care
from opslib.core.config import load_config
from opslib.core.errors import OpsError
from opslib.core.kinds import Kind, pick_kind
from opslib.ops.drill.target import Target
from opslib.serving.client import ServiceClient, ServiceError
from opslib.serving.keys import KEY_VARIABLE
from opslib.serving.swap import confirm, local_digests

BUSY = (409, 429, 503)
LIMIT_S = 60.0
_POLL_S = 0.3
_VERSION_S = 5.0


def keep_home(target: Target) -> AbstractContextManager[Callable[[], None]]:
    """Bring a running service back to its stable model after the block, and remove the bad ones
    made for it; what the block gets says that the service is home already. A staging service ends
    with its drill and is left alone. Raises OpsError: it does not go back; the message says what to
    do."""
    if target.staged is not None:
        return nullcontext(lambda: None)
    folders = [str(folder) for folder in target.ground or ()]
    path = str(target.stable)
    return start_aftercare(
        "opslib.ops.drill.keeper",
        *(str(target.config.source), target.kind.name, target.url, path, *folders),
        variables={KEY_VARIABLE: target.key},
        otherwise=_advise(target.kind, target.url, path),
    )


def bring_home(kind: Kind, url: str, key: str, path: str, *, limit_s: float = LIMIT_S) -> None:
    """Switch the service to the model at `path`, and see that it serves it, where it says so.

    A switch that was asked for may still be under way: until it is over, asking is refused (409). A
    switch that is not answered in time may have been done all the same: then it is asked what it
    serves.

    `kind`: of which kind the model is. `limit_s`: how long it is tried. Raises OpsError: it does
    not go back; the message says what to do.
    """
    give_up = time.monotonic() + limit_s
    while True:
        try:
            _switch(kind, url, key, path, max(_POLL_S, give_up - time.monotonic()))
            return
        except ServiceError as error:
            if error.status not in BUSY or time.monotonic() > give_up:
                raise OpsError(f"{_advise(kind, url, path)}: {error}") from error
            time.sleep(_POLL_S)


def _switch(kind: Kind, url: str, key: str, path: str, limit_s: float) -> None:
    digests = local_digests(Path(path))
    late = None
    try:
        timeout_s = min(kind.client.timeout_s, limit_s)
        with ServiceClient(url, key, kind.client, timeout_s=timeout_s) as client:
            client.reload(path)
    except ServiceError as error:
        if error.stage != "timeout":
            raise
        late = error
    try:
        with ServiceClient(url, key, kind.client, timeout_s=_VERSION_S) as client:
            live = client.version()
            if live.said or late is not None:
                confirm(url, live, path, digests)
    except ServiceError as error:
        raise late or error from error


def _advise(kind: Kind, url: str, path: str) -> str:
    return (
        f"after the drill {url} may serve the wrong model; when it answers, bring it "
        f"back with `pillops reload{kind.option} --host {url} --path {path}`"
    )


def _prepare(source: str, kind: str, url: str, path: str, *folders: str) -> Callable[[], None]:
    config, key = load_config(Path(source)), os.environ[KEY_VARIABLE]

    def work() -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        bring_home(pick_kind(config, kind), url, key, path)

    return work


if __name__ == "__main__":
    sys.exit(take_care(lambda: _prepare(*sys.argv[1:])))
