"""A real service for tests, drills and staging: started on a free port, awaited, stopped by pid."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from opslib.core.environment import ServiceEnvironment
from opslib.core.errors import DeadlineError, OpsError
from opslib.core.overrides import PREFIX
from opslib.core.secrets import mask
from opslib.serving.keys import HEADER, KEY_VARIABLE, make_key
from opslib.serving.server import END_WITH_STDIN_VARIABLE

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
_POLL_S = 0.05
_URL = re.compile(r"http://[\d.]+:\d+")
_SERVICE_VARIABLES = ("MODEL_PATH", *(name.upper() for name in ServiceEnvironment.model_fields))


@dataclass(frozen=True)
class RunningService:
    """A service under way: where it answers, its process, its key and what it said at start."""

    url: str
    pid: int
    key: str = field(repr=False)
    output: Path

    @property
    def headers(self) -> dict[str, str]:
        """The header that lets a request in."""
        return {HEADER: self.key}


class StagedService:
    """A service of this checkout on a free loopback port, which can be killed and started again; a
    context manager that starts and stops it.

    Of this process's variables none of the service's are passed on, and those of `PILLSNAP_` only
    with `overrides`; `variables` are its own, such as `RATE_LIMIT_PER_MIN`, with a new key unless
    one is given. `deadline_s` is how long it may take to answer `/health`.
    """

    def __init__(
        self,
        config: Path,
        *,
        variables: Mapping[str, str] | None = None,
        deadline_s: float = START_DEADLINE_S,
        overrides: bool = True,
    ) -> None:
        given = {KEY_VARIABLE: make_key(), END_WITH_STDIN_VARIABLE: "1", **(variables or {})}
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in _SERVICE_VARIABLES and (overrides or not name.startswith(PREFIX))
        }
        self.key = given[KEY_VARIABLE]
        self._environment = inherited | given
        self._config = config
        self._deadline_s = deadline_s
        self._folder = tempfile.TemporaryDirectory(prefix="pillops-staging-")
        self._process: subprocess.Popen[bytes] | None = None
        self._running: RunningService | None = None

    @property
    def running(self) -> RunningService:
        """The service as it was started last."""
        if self._running is None:
            raise OpsError("the staging service was not started")
        return self._running

    def start(self) -> RunningService:
        """Start it, on the port it had before if there was one, and wait for `/health`, which one
        that is degraded answers too: who needs a certain model asks for it. A `DeadlineError` where
        it does not answer in time, an `OpsError` with what it said where it ended."""
        port = self._running.url.rpartition(":")[2] if self._running else "0"
        output = Path(self._folder.name) / "output.txt"
        command = [sys.executable, "-m", "opslib.cli", "serve", "--config", str(self._config)]
        with output.open("wb") as sink:
            self._process = process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", port],
                env=self._environment,
                stdin=subprocess.PIPE,  # the service ends when this process, which holds it, does
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        url = _await_health(process, output, self.key, self._deadline_s)
        self._running = RunningService(url, process.pid, self.key, output)
        return self._running

    def kill(self) -> None:
        """End it with SIGKILL, which no process can prepare for, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            _close(self._process)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            stop_process(self._process)
            _close(self._process)
        self._folder.cleanup()


@contextmanager
def start_service(
    config: Path,
    *,
    variables: Mapping[str, str] | None = None,
    deadline_s: float = START_DEADLINE_S,
) -> Iterator[RunningService]:
    """Start a service and stop it when the block ends; see `StagedService`."""
    with StagedService(config, variables=variables, deadline_s=deadline_s) as service:
        yield service.running


def stop_process(process: subprocess.Popen[bytes], deadline_s: float = STOP_DEADLINE_S) -> int:
    """Stop a process gracefully, by force past the deadline, and return its exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _await_health(
    process: subprocess.Popen[bytes], output: Path, key: str, deadline_s: float
) -> str:
    give_up = time.monotonic() + deadline_s
    while time.monotonic() < give_up:
        said = output.read_text(errors="replace")
        if process.poll() is not None:
            shown = " ".join(mask(said, [key]).split())[-600:]
            raise OpsError(f"the service ended with {process.returncode}: {shown}")
        found = _URL.search(said)
        if found and _is_healthy(found.group(0)):
            return found.group(0)
        time.sleep(_POLL_S)
    shown = " ".join(mask(output.read_text(errors="replace"), [key]).split())[-300:]
    raise DeadlineError(f"the service did not answer /health within {deadline_s:g} s: {shown}")


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
