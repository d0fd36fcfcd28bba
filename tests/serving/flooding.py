"""A real service under a flood: whether it answers, what it takes, what it logs, what it keeps."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from opslib.serving.keys import HEADER
from opslib.serving.staging import RunningService, start_service
from tests.serving.conftest import Place
from tests.waiting import await_that

ATTACKER = Path(__file__).with_name("flood.py")
IN_TIME_S = 1.0
GIVE_UP_S = 20.0
AFTER_S = 45.0
TASKS = "tasks.txt"
# Run by the interpreter of the service before anything else: a small limit, and a way to ask.
SITE = """
import asyncio, os, resource, signal
resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))
def tell(*_):
    with open({path!r} + ".new", "w") as file:
        file.write(str(len(asyncio.all_tasks())))
    os.replace({path!r} + ".new", {path!r})
signal.signal(signal.SIGUSR1, tell)
"""


@dataclass(frozen=True)
class Usage:
    """What a process holds."""

    memory_bytes: int
    descriptors: int
    tasks: int


@dataclass(frozen=True)
class Outcome:
    """What came of one flood; a try is its seconds, infinite where it was not answered 200."""

    health: tuple[float, ...]
    predict: tuple[float, ...]
    before: Usage
    peak_bytes: int
    log_bytes: int
    after: Usage
    attacker: str

    @property
    def in_time(self) -> float:
        """The share of `/health` or of `/predict`, the lower one, that was answered in a second."""
        return min(
            sum(one <= IN_TIME_S for one in tries) / len(tries)
            for tries in (self.health, self.predict)
        )

    @property
    def slowest_s(self) -> float:
        """The longest that a try took."""
        return max(*self.health, *self.predict)

    @property
    def growth(self) -> float:
        """The most memory it took, as a multiple of what it took at rest."""
        return self.peak_bytes / self.before.memory_bytes


class Target:
    """A running service with few descriptors, asked and measured from outside."""

    def __init__(self, service: RunningService, place: Place) -> None:
        self.service = service
        self._place = place
        self._port = int(service.url.rpartition(":")[2])
        picture = place.images[0].read_bytes()
        body = (
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
            b"Content-Type: image/jpeg\r\n\r\n" + picture + b"\r\n--b--\r\n"
        )
        self._health = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        self._predict = (
            f"POST /predict HTTP/1.1\r\nHost: x\r\n{HEADER}: {service.key}\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        ).encode() + body
        for _ in range(50):
            self.ask(self._predict)
            self.ask(self._health)

    @property
    def log_bytes(self) -> int:
        """The size of both logs."""
        logs = self._place.config.logs_dir
        return sum((logs / name).stat().st_size for name in ("api.out", "api.err"))

    def ask(self, request: bytes) -> float:
        """Send a request on a connection of its own; return the seconds until it was answered 200,
        or infinity."""
        started = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", self._port), GIVE_UP_S) as one:
                one.sendall(request)
                answer = b""
                while part := one.recv(65536):
                    answer += part
        except OSError:
            return math.inf
        return time.monotonic() - started if answer.startswith(b"HTTP/1.1 200 ") else math.inf

    def usage(self) -> Usage:
        """What the service holds now."""
        pid = self.service.pid
        told = self._place.config_path.with_name(TASKS)
        told.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)
        await_that(told.exists, "the number of tasks")
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return Usage(self._status("VmRSS"), descriptors, int(told.read_text()))

    def flood(self, kind: str, *, tries: int, held: int, per_s: float, pause_s: float) -> Outcome:
        """Flood the service while it is asked; wait until all has ended that the flood began."""
        before, logged = self.usage(), self.log_bytes
        Path(f"/proc/{self.service.pid}/clear_refs").write_text("5")
        with self._attack(kind, held, per_s) as attacker:
            health, predict = [], []
            for _ in range(tries):
                health.append(self.ask(self._health))
                predict.append(self.ask(self._predict))
                time.sleep(pause_s)
            peak = self._status("VmHWM")
        said = attacker.stdout.read().decode() if attacker.stdout else ""
        await_that(lambda: self._is_over(before), "the end of all connections", AFTER_S)
        after = self.usage()
        return Outcome(
            tuple(health), tuple(predict), before, peak, self.log_bytes - logged, after, said
        )

    def _is_over(self, before: Usage) -> bool:
        now = self.usage()
        return now.descriptors <= before.descriptors and now.tasks <= before.tasks

    @contextmanager
    def _attack(self, kind: str, held: int, per_s: float) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-S", "-E", str(ATTACKER), str(self._port), kind]
        attacker = subprocess.Popen(
            [*command, str(held), str(per_s)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        assert attacker.stdout is not None
        assert attacker.stdin is not None
        try:
            attacker.stdout.readline()  # it has all that it holds
            yield attacker
            attacker.stdin.close()  # its sign to let go
            attacker.wait(30)
        finally:
            attacker.kill()
            attacker.wait()

    def _status(self, line: str) -> int:
        text = Path(f"/proc/{self.service.pid}/status").read_text()
        return int(next(one for one in text.splitlines() if one.startswith(line)).split()[1]) << 10


@contextmanager
def start_target(place: Place, descriptors: int = 1024) -> Iterator[Target]:
    """Start a service that may open so many files, as after `ulimit -n`."""
    folder = place.config_path.parent / "site"
    folder.mkdir()
    path = str(place.config_path.with_name(TASKS))
    (folder / "sitecustomize.py").write_text(SITE.format(descriptors=descriptors, path=path))
    variables = {"RATE_LIMIT_PER_MIN": "1000000", "PYTHONPATH": str(folder)}
    with (
        mock.patch("opslib.serving.staging.subprocess", subprocess),  # a new interpreter reads it
        start_service(place.config_path, variables=variables) as service,
    ):
        yield Target(service, place)
