"""Doing to a service under load what a bad day does, and noting when each thing happened."""

import itertools
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from opslib.core.errors import OpsError
from opslib.ops.drill.record import EventKind, Injection, Memory, WindowKind
from opslib.ops.drill.target import Target
from opslib.serving.client import ServiceClient, ServiceError
from opslib.serving.live import LiveVersion
from opslib.serving.load import LoadProcess

HOLD_SHARE, PAUSE_SHARE = 0.2, 0.15


@dataclass
class Deed:
    """Something done to the service; times are of `time.perf_counter`."""

    kind: EventKind
    name: str
    start: float
    end: float = 0.0
    status: int | None = None
    stage: str | None = None
    resident: bool | None = None
    said: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the service answered with 200."""
        return self.status == 200


@dataclass
class Rehearsal:
    """A drill under way: the service, the load on it, and the notes taken so far. `settle_s` is how
    long a switch's window goes on after the new model's first answer. `calms` are spans in which
    nothing was done, on the clock of the deeds."""

    target: Target
    client: ServiceClient
    load: LoadProcess
    settle_s: float
    report: Callable[[str], None]
    deeds: list[Deed] = field(default_factory=list)
    calms: list[tuple[WindowKind, float, float]] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._others = itertools.cycle(self.target.others)

    def next_other(self) -> Path:
        """Return the other model, each time under another path where there are several."""
        return next(self._others)

    def rest(self, seconds: float) -> None:
        """Let the load go on for a while. Raises OpsError: the load has ended."""
        give_up = time.perf_counter() + seconds
        while (left := give_up - time.perf_counter()) > 0:
            time.sleep(min(left, 0.5))
            if not self.load.running:
                raise OpsError("the load ended before the drill did")

    def settle(self) -> None:
        """Wait until a switch's window is over, and a little longer."""
        self.rest(self.settle_s * (1 + HOLD_SHARE))

    def pause(self) -> None:
        """Wait a little between two deeds that change nothing."""
        self.rest(self.settle_s * PAUSE_SHARE)

    def watch(self, kind: WindowKind, seconds: float) -> None:
        """Watch the service for a while without doing anything to it."""
        start = time.perf_counter()
        self.rest(seconds)
        self.calms.append((kind, start, time.perf_counter()))

    def ask(self, kind: EventKind, name: str, path: str) -> Deed:
        """Ask for a model and note what came of it."""
        deed = Deed(kind, name, time.perf_counter())
        self.deeds.append(deed)
        ask_reload(self.client, path, deed)
        return deed

    def note_memory(self, during: Literal["swap", "leak"], number: int) -> None:
        """Note how much memory the service holds after a switch, counted from 1."""
        if self.target.pid is not None and (rss := read_rss_bytes(self.target.pid)):
            self.memory.append(Memory(during=during, swap=number, rss_bytes=rss))

    def note(self, injected: str, promised: str, seen: str, held: bool | None) -> None:
        """Note what was done, what is promised then, and what was seen."""
        self.injections.append(
            Injection(injected=injected, promised=promised, seen=seen, held=held)
        )

    def version(self) -> LiveVersion | None:
        """Return what the service says it serves, or None where it does not say."""
        try:
            return self.client.version()
        except ServiceError:
            return None


def read_rss_bytes(pid: int) -> int | None:
    """Return the resident bytes of a process, or None where it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE") or None


def ask_reload(client: ServiceClient, path: str, deed: Deed) -> None:
    """Ask for the model at `path` and write into `deed` what came of it."""
    try:
        resident = client.reload(path).get("resident")
        deed.status, deed.resident = 200, resident if isinstance(resident, bool) else None
    except ServiceError as error:
        deed.status, deed.stage, deed.said = error.status, error.stage, str(error)
    deed.end = time.perf_counter()


def ask_at_once(target: Target, deeds: list[Deed], paths: list[str]) -> None:
    """Ask for several models at the same moment, each on a connection of its own."""
    gate = threading.Barrier(len(deeds))

    def ask(deed: Deed, path: str) -> None:
        with target.connect() as client:
            with suppress(ServiceError):  # both must come to the gate
                client.health()  # connected before it opens
            gate.wait()
            deed.start = time.perf_counter()
            ask_reload(client, path, deed)

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(deeds, paths, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
