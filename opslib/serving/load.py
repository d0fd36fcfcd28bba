"""Load at a constant arrival rate (open loop) or as fast as it goes, from a process of its own.

In an open loop a request is sent when it is due, whether or not earlier ones were answered, and
its latency counts from the moment it was due: a stall is seen by every request it delayed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from opslib.core.errors import OpsError
from opslib.core.records import Part, Record
from opslib.serving.keys import HEADER, KEY_VARIABLE

_BOUNDARY = "pillops-load"
_KEEPALIVE_S = 2.0  # below the server's, so that no request meets a closing connection
_STOP_S = 30.0


class LoadPlan(Part):
    """What to send: a route, image files in turn, how many requests, and how fast.

    `rate_per_s` is the constant arrival rate; None sends as fast as `connections` allow. The key
    is not part of a plan; the process takes it from its environment.
    """

    url: str
    images: tuple[Path, ...]
    requests: int
    rate_per_s: float | None
    route: str = "/predict"
    batch_size: int = 1
    connections: int = 32
    timeout_s: float = 30.0


class Sample(Part):
    """One request: when it was due (seconds from the start), what came of it, and how late."""

    due_s: float
    latency_ms: float
    status: int
    generation: int | None = None
    model_sha256: str | None = None
    header_generation: int | None = None
    class_ids: tuple[int, ...] = ()
    image: int = 0
    error: str | None = None


class LoadResult(Record):
    """Every request of a load, in the order in which they were due."""

    schema_name = "load"

    plan: LoadPlan
    started_unix_s: float
    wall_s: float
    samples: tuple[Sample, ...]

    @property
    def failures(self) -> tuple[Sample, ...]:
        """The requests that were not answered with 200."""
        return tuple(sample for sample in self.samples if sample.status != 200)

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

    def wait(self, timeout_s: float) -> LoadResult:
        """Wait for the end and return what was measured.

        Raises:
            OpsError: the process ended badly or in too long a time.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise OpsError(f"the load did not end within {timeout_s:g} s") from error
        if code:
            raise OpsError(f"the load process ended with {code}")
        return LoadResult.read(self._result)


@contextmanager
def start_load(plan: LoadPlan, key: str) -> Iterator[LoadProcess]:
    """Start a load in its own process; it is ended with the block."""
    with tempfile.TemporaryDirectory(prefix="pillops-load-") as folder:
        request, result = Path(folder) / "plan.json", Path(folder) / "result.json"
        request.write_text(plan.model_dump_json())
        process = subprocess.Popen(
            [sys.executable, "-m", "opslib.serving.load", str(request), str(result)],
            env=os.environ | {KEY_VARIABLE: key},
            stdin=subprocess.DEVNULL,
        )
        try:
            yield LoadProcess(process, result)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(_STOP_S)


def run_load(plan: LoadPlan, key: str) -> LoadResult:
    """Send the load from this process and return what was measured."""
    return asyncio.run(_send_all(plan, key))


async def _send_all(plan: LoadPlan, key: str) -> LoadResult:
    bodies = make_bodies(plan)
    limits = httpx.Limits(
        max_connections=plan.connections,
        max_keepalive_connections=plan.connections,
        keepalive_expiry=_KEEPALIVE_S,
    )
    headers = {HEADER: key, "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    async with httpx.AsyncClient(
        base_url=plan.url, limits=limits, timeout=plan.timeout_s, headers=headers, trust_env=False
    ) as client:
        unix, started = time.time(), time.perf_counter()
        if plan.rate_per_s is None:
            samples = await _send_closed(client, plan, bodies, started)
        else:
            samples = await _send_open(client, plan, bodies, started)
        wall_s = time.perf_counter() - started
    samples.sort(key=lambda sample: sample.due_s)
    return LoadResult(plan=plan, started_unix_s=unix, wall_s=wall_s, samples=tuple(samples))


async def _send_open(
    client: httpx.AsyncClient, plan: LoadPlan, bodies: list[bytes], started: float
) -> list[Sample]:
    rate = plan.rate_per_s or 1.0
    tasks = []
    for index in range(plan.requests):
        due = index / rate
        wait_s = started + due - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.create_task(_send_one(client, plan, bodies, index, started, due)))
    return list(await asyncio.gather(*tasks))


async def _send_closed(
    client: httpx.AsyncClient, plan: LoadPlan, bodies: list[bytes], started: float
) -> list[Sample]:
    left = iter(range(plan.requests))
    samples: list[Sample] = []

    async def send_in_turn() -> None:
        for index in left:
            due = time.perf_counter() - started
            samples.append(await _send_one(client, plan, bodies, index, started, due))

    await asyncio.gather(*(send_in_turn() for _ in range(plan.connections)))
    return samples


async def _send_one(
    client: httpx.AsyncClient,
    plan: LoadPlan,
    bodies: list[bytes],
    index: int,
    started: float,
    due: float,
) -> Sample:
    image = index % len(bodies)
    found: dict[str, Any] = {}
    try:
        answer = await client.post(plan.route, content=bodies[image])
        status = answer.status_code
        found = _read_answer(answer) if status == 200 else {"error": answer.text[:200]}
    except httpx.HTTPError as error:
        status, found = 0, {"error": f"{type(error).__name__}: {error}"}
    latency_ms = (time.perf_counter() - started - due) * 1000
    return Sample(due_s=due, latency_ms=latency_ms, status=status, image=image, **found)


def _read_answer(answer: httpx.Response) -> dict[str, Any]:
    content = answer.json()
    results = content.get("results") or [content]
    marked = answer.headers.get("X-Generation")
    return {
        "generation": content.get("generation"),
        "header_generation": int(marked) if marked else None,
        "model_sha256": answer.headers.get("X-Model-SHA256"),
        "class_ids": tuple(result["class_id"] for result in results),
    }


def make_bodies(plan: LoadPlan) -> list[bytes]:
    """Return one finished multipart body for each image, or group of images."""
    names = list(plan.images)
    size = plan.batch_size
    groups = [names[start : start + size] for start in range(0, len(names), size)]
    field = "image" if size == 1 else "images"
    return [b"".join(_part(field, path) for path in group) + _END for group in groups if group]


_END = f"--{_BOUNDARY}--\r\n".encode()
_TYPES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".bmp": "bmp", ".webp": "webp"}


def _part(field: str, path: Path) -> bytes:
    kind = _TYPES.get(path.suffix.lower(), "octet-stream")
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; '
        f'filename="{path.name}"\r\nContent-Type: image/{kind}\r\n\r\n'
    )
    return head.encode() + path.read_bytes() + b"\r\n"


def main(arguments: list[str]) -> int:
    """Run the plan of the first file and leave the result in the second."""
    plan = LoadPlan.model_validate(json.loads(Path(arguments[0]).read_text()))
    run_load(plan, os.environ[KEY_VARIABLE]).write(Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
