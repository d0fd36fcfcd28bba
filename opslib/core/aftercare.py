"""What has to be done however a piece of work ends, even by SIGKILL: a process of its own does it.

It waits until the work closes its standard input or dies, which is the same to it.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opslib.core.errors import OpsError

_READY = "ready\n"
_CANCEL = "cancel\n"
_LIMIT_S = 90.0


@contextmanager
def start_aftercare(
    module: str,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    otherwise: str = "",
) -> Iterator[Callable[[], None]]:
    """Run `module` in a process of its own once the block has ended, in whatever way.

    The module's main calls `take_care`. What the block gets cancels the aftercare when called.
    `otherwise`: what is to be said where it is not done in time; it goes on all the same. Raises
    `OpsError` where it could not be done; the message is what the module says.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **(variables or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what ends the work's whole group spares it
    )

    def cancel() -> None:
        if process.stdin is not None:
            process.stdin.write(_CANCEL)
            process.stdin.flush()

    try:
        if process.stdout is not None and process.stdout.readline() == _READY:
            yield cancel
    finally:
        try:
            _, said = process.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            late = f"{module} goes on in process {process.pid} and did not end in {_LIMIT_S:g} s"
            raise OpsError(f"{otherwise}{': ' if otherwise else ''}{late}") from error
        if process.returncode:
            raise OpsError(said.strip().rpartition("\n")[2] or f"{module} ended badly")


def take_care(prepare: Callable[[], Callable[[], None]], otherwise: str = "") -> int:
    """Prepare, wait for the end of the work, then do what `prepare` returned unless it was
    cancelled; return the exit code. Errors go to stderr, after `otherwise`."""
    try:
        work = prepare()
        sys.stdout.write(_READY)
        sys.stdout.flush()
        if sys.stdin.read() != _CANCEL:
            work()
    except (OpsError, OSError) as error:
        sys.stderr.write(f"{otherwise}{error}\n")
        return 1
    return 0
