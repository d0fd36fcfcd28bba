"""The services of `benchmarks/peers.py` under way: started, loaded with h2load, their CPU time."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from opslib.core.errors import DeadlineError, OpsError
from opslib.serving.keys import HEADER
from opslib.serving.load_sending import BOUNDARY
from opslib.serving.staging import stop_process

DEADLINE_S = 60.0
MAX_GAP = 1e-3  # of two probabilities of one image
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True)
class Visit:
    """What one visit measured: CPU time of a request, requests a second (a bare loop has none), and
    how many cores other processes kept busy meanwhile."""

    cpu_ms: float
    rate_per_s: float = math.nan
    other_cores: float = math.nan


@dataclass
class Arm:
    """A service under way; `rate_per_s` is what it answered last."""

    name: str
    url: str
    pid: int
    key: str = "none"
    rate_per_s: float = 100.0

    def ask(self, body: bytes) -> httpx.Response:
        """Post one form."""
        headers = {"Content-Type": FORM, HEADER: self.key}
        return httpx.post(f"{self.url}/predict", content=body, headers=headers, trust_env=False)

    def classify(self, body: bytes) -> tuple[int, float]:
        """Return the class of one form and its probability; an `OpsError` where it has none."""
        answer = self.ask(body)
        if answer.status_code != 200:
            raise OpsError(f"{self.name} answered {answer.status_code}: {answer.text[:200]}")
        return answer.json()["class_id"], answer.json()["confidence"]

    def load(self, body: Path, connections: int, seconds: float) -> Visit:
        """Have it answer the form for about that long; an `OpsError` where a request fails."""
        count = connections * max(2, round(self.rate_per_s * seconds / connections))
        command = ["h2load", "--h1", f"--clients={connections}", f"--requests={count}"]
        command += [f"--data={body}", f"--header={HEADER}: {self.key}"]
        command += [f"--header=Content-Type: {FORM}", f"{self.url}/predict"]
        before_s = tree_cpu_s(self.pid)
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
        cpu_ms = 1000 * (tree_cpu_s(self.pid) - before_s) / count
        found = re.search(r"([\d.]+) req/s", done.stdout)
        if found is None or f"status codes: {count} 2xx" not in done.stdout:
            told = re.findall(r"(?:requests|status codes): .*", done.stdout) or [done.stderr]
            raise OpsError(f"{self.name}: not every request was answered: {'; '.join(told)}")
        self.rate_per_s = float(found[1])
        return Visit(cpu_ms, self.rate_per_s)


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and of all below it: by their clocks, since `/proc/PID/task` forgets
    the threads that have ended."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    tree = [pid]
    for one in tree:
        tree += children.get(one, [])
    spent_s = 0.0
    for one in tree:
        with suppress(OSError):  # it has ended
            spent_s += time.clock_gettime(~one << 3 | 2)  # clock_getcpuclockid(3)
    return spent_s


@dataclass
class Others:
    """How many cores processes that are not ours kept busy; known once the block has ended."""

    cores: float = math.nan


@contextmanager
def watch_others(arms: Collection[Arm]) -> Iterator[Others]:
    """See whether anything else on this host runs during the block. Fewer threads get a smaller
    share of a busy host, so that services would be compared by how many they have."""

    def other_s() -> float:
        busy = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
        ticks = sum(map(int, busy)) - int(busy[3]) - int(busy[4])  # idle, waiting for a disk
        ours_s = sum(tree_cpu_s(arm.pid) for arm in arms) + sum(os.times()[:4])
        return ticks / os.sysconf("SC_CLK_TCK") - ours_s

    others, started, before_s = Others(), time.monotonic(), other_s()
    yield others
    others.cores = (other_s() - before_s) / (time.monotonic() - started)


@contextmanager
def start_peer(
    name: str, python: Path, command: str, variables: dict[str, str], folder: Path
) -> Iterator[Arm]:
    """Run a module on a free port, `{port}` in its `command`; it ends, and all that it started,
    with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / f"{name}.txt").open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", *command.format(port=port).split()],
            env=os.environ | variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Arm(name, f"http://127.0.0.1:{port}", process.pid)
    finally:
        stop_process(process)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def await_answer(arm: Arm, body: bytes, folder: Path) -> None:
    """Wait until a peer answers; a `DeadlineError` with what it said last."""
    give_up, said = time.monotonic() + DEADLINE_S, ""
    while time.monotonic() < give_up:
        with suppress(httpx.TransportError):
            answer = arm.ask(body)
            if answer.status_code == 200:
                return
            said = f"{answer.status_code} {answer.text}"
        time.sleep(0.1)
    said = " ".join(f"{(folder / f'{arm.name}.txt').read_text(errors='replace')} {said}".split())
    raise DeadlineError(f"{arm.name} did not answer within {DEADLINE_S:g} s: {said[-300:]}")


def check_agreement(first: Arm, arms: Collection[Arm], bodies: Sequence[bytes]) -> None:
    """Refuse, with an `OpsError`, to compare services that do not say the same of every image."""
    for number, body in enumerate(bodies):
        expected = first.classify(body)
        for arm in arms:
            class_id, confidence = arm.classify(body)
            if class_id != expected[0] or abs(confidence - expected[1]) > MAX_GAP:
                said = f"class {class_id} at {confidence}, {first.name} class {expected[0]} at"
                raise OpsError(f"{arm.name} says of image {number} {said} {expected[1]}")
