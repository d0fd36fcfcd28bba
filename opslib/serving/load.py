"""Load at a constant or a growing arrival rate (open loop) or as fast as it goes, from a process of
its own.

In an open loop a request is sent when it is due, whether or not earlier ones were answered, and
its latency counts from the moment it was due: a stall is seen by every request it delayed.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opslib.core.errors import DeadlineError, OpsError
from opslib.core.records import Part, Record
from opslib.serving.keys import KEY_VARIABLE, check_sendable

_START_S = 30.0
_POLL_S = 0.01
STARTED = "started"


class LoadPlan(Part):
    """What to send: a route, image files in turn, how many requests, and how fast.

    `rate_per_s` is the constant arrival rate; None sends as fast as `connections` allow. With
    `ramp_to_per_s` it is the rate of the first request, which grows evenly to that of the last.
    `limit_ms`: no more is sent once more than one of a hundred answers came later. `opened`: so
    many connections are opened before the first request. The key is not part of a plan; the process
    takes it from its environment.
    """

    url: str
    images: tuple[Path, ...]
    requests: int
    rate_per_s: float | None
    ramp_to_per_s: float | None = None
    limit_ms: float | None = None
    route: str = "/predict"
    batch_size: int = 1
    connections: int = 32
    opened: int = 0
    timeout_s: float = 30.0


class Sample(Part):
    """One request: when it was due (seconds from the start), what came of it, and how late.

    `sent_late_ms` is the part of the latency for which the generator itself, or a wait for one of
    its connections, is to blame.
    """

    due_s: float
    latency_ms: float
    status: int
    sent_late_ms: float | None = None
    generation: int | None = None
    model_sha256: str | None = None
    version_tag: str | None = None
    header_generation: int | None = None
    class_ids: tuple[int, ...] = ()
    confidences: tuple[float, ...] = ()
    image: int = 0
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it was not answered with 200 and a prediction."""
        return self.status != 200 or self.error is not None


class LoadResult(Record):
    """Every request of a load, in the order in which they were due.

    `started_clock_s` is `time.perf_counter`'s, which all processes of a Linux host share.
    """

    schema_name = "load"
    schema_version = 2

    plan: LoadPlan
    started_unix_s: float
    started_clock_s: float
    wall_s: float
    samples: tuple[Sample, ...]

    @property
    def failures(self) -> tuple[Sample, ...]:
        """The requests that were not answered with 200."""
        return tuple(sample for sample in self.samples if sample.failed)

    @property
    def rate_per_s(self) -> float:
        """Answers a second, as it turned out."""
        return len(self.samples) / self.wall_s

    def latency_ms(self, share: float) -> float:
        """Return the latency below which `share` (0..1) of the requests lie."""
        ordered = sorted(sample.latency_ms for sample in self.samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class LoadProcess:
    """A load under way in its own process."""

    def __init__(self, process: subprocess.Popen[bytes], result: Path) -> None:
        self._process = process
        self._result = result

    @property
    def running(self) -> bool:
        """Whether it is still sending."""
        return self._process.poll() is None

    def wait_started(self) -> None:
        """Wait until the first request is sent; an `OpsError` says that the process ended before it
        or takes too long."""
        give_up = time.monotonic() + _START_S
        while not self._result.with_name(STARTED).exists():
            if not self.running:
                raise OpsError(f"the load process ended with {self._process.returncode}")
            if time.monotonic() > give_up:
                raise DeadlineError(f"the load did not begin within {_START_S:g} s")
            time.sleep(_POLL_S)

    def stop(self, timeout_s: float) -> LoadResult:
        """Send no more, wait for what is in flight and return what was measured; see `wait`."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> LoadResult:
        """Wait for the end and return what was measured; an `OpsError` says that the process ended
        badly or in too long a time."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise OpsError(f"the load did not end within {timeout_s:g} s") from error
        if code:
            raise OpsError(f"the load process ended with {code}")
        return LoadResult.read(self._result)


@contextmanager
def start_load(plan: LoadPlan, key: str) -> Iterator[LoadProcess]:
    """Start a load in its own process; it is ended with the block. A `ConfigError` where no request
    can carry the key."""
    check_sendable(key)
    with tempfile.TemporaryDirectory(prefix="pillops-load-") as folder:
        request, result = Path(folder) / "plan.json", Path(folder) / "result.json"
        request.write_text(plan.model_dump_json())
        process = subprocess.Popen(
            [sys.executable, "-m", "opslib.serving.load_sending", str(request), str(result)],
            env=os.environ | {KEY_VARIABLE: key},
            stdin=subprocess.DEVNULL,
        )
        try:
            yield LoadProcess(process, result)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
