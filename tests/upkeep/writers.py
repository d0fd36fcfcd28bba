"""Programs that write a log at a steady rate, and counting what became of their lines.

As a program: `python -m tests.upkeep.writers ours|append LOG RATE_PER_S`. It writes until SIGTERM
and then says on stdout how many lines it wrote.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opslib.serving.logs import AccessLog
from tests.waiting import await_that

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Writer:
    """A writer under way; `lines` is how many it wrote, known once it was stopped."""

    process: subprocess.Popen[str]
    log: Path
    lines: int = field(default=-1)


@contextmanager
def start_writer(kind: str, log: Path, rate_per_s: int = 2000) -> Iterator[Writer]:
    """Start a writer of `log`, wait for its first line, and stop it when the block ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.upkeep.writers", kind, str(log), str(rate_per_s)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    writer = Writer(process, log)
    try:
        await_that(lambda: log.exists() and log.stat().st_size > 0)
        yield writer
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=20)
        writer.lines = int(said)


def count_lines(logs: Path, name: str, *, torn_ends: bool = False) -> list[int]:
    """The numbers of all lines of the log `name`, sorted, wherever rotation took them; a torn or
    foreign line fails.

    `torn_ends`: a file may end within a line, which then is a lost one.
    """
    found = []
    for path in [*logs.glob(f"{name}*"), *(logs / "archive").glob(f"{name}*.gz")]:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if torn_ends:
            data = data[: data.rfind(b"\n") + 1]
        found += [json.loads(line)["n"] for line in data.splitlines() if line.strip()]
    return sorted(found)


def write_lines(kind: str, log: Path, rate_per_s: int) -> int:
    """Write numbered lines until SIGTERM and return how many there were."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    write = AccessLog(log, ()).write if kind == "ours" else open_appending(log)
    started, count = time.monotonic(), 0
    while not stopped:
        write({"n": count, "route": "/predict", "status": 200, "total_ms": count % 37})
        count += 1
        ahead_s = count / rate_per_s - (time.monotonic() - started)
        if ahead_s > 0:
            time.sleep(ahead_s)
    return count


def open_appending(log: Path) -> Callable[[dict[str, Any]], None]:
    """What a foreign program does: it opens its log once and appends for ever."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(fields: dict[str, Any]) -> None:
        os.write(descriptor, (json.dumps(fields) + "\n").encode())

    return write


if __name__ == "__main__":
    sys.stdout.write(f"{write_lines(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))}\n")
