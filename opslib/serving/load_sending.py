"""The process that sends a load: requests made beforehand, written when they are due."""

import asyncio
import gc
import json
import os
import selectors
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from opslib.serving.keys import HEADER, KEY_VARIABLE
from opslib.serving.load import STARTED, LoadPlan, LoadResult, Sample
from opslib.serving.ramp import LateWatch, due_s
from opslib.serving.sender import RawAnswer, Sender, join_request

BOUNDARY = "pillops-load"


def run_load(plan: LoadPlan, key: str, *, started: Path | None = None) -> LoadResult:
    """Send the load from this process and return what was measured; SIGTERM ends it early. The file
    `started` is made when the first request is sent."""
    # epoll sleeps whole milliseconds, select as long as it is told.
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        return runner.run(_Load(plan, key, started).send_all())


class _Load:
    """One load: what is to be sent, and what has come back."""

    def __init__(self, plan: LoadPlan, key: str, started: Path | None) -> None:
        headers = {HEADER: key, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        self._plan = plan
        bodies = make_bodies(plan)
        self._requests = [join_request(plan.url, plan.route, headers, one) for one in bodies]
        self._sender = Sender(plan.url, plan.connections, plan.timeout_s)
        self._mark = started
        self._started = 0.0
        self._stopped = asyncio.Event()
        self._parent = os.getppid()
        self._answers: list[tuple[float, int, float, RawAnswer | Exception]] = []
        self._watch = LateWatch()

    async def send_all(self) -> LoadResult:
        """Send until all is sent, or until SIGTERM, and wait for the answers."""
        with suppress(ValueError, RuntimeError):  # only the main thread hears of signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopped.set)
        await self._sender.open(self._plan.opened)
        unix, self._started = time.time(), time.perf_counter()
        if self._mark is not None:
            self._mark.touch()
        await (self._send_closed() if self._plan.rate_per_s is None else self._send_open())
        wall_s = time.perf_counter() - self._started
        self._sender.close()
        self._answers.sort(key=lambda one: one[0])
        return LoadResult(
            plan=self._plan,
            started_unix_s=unix,
            started_clock_s=self._started,
            wall_s=wall_s,
            samples=tuple(self._describe(*one) for one in self._answers),
        )

    def _is_over(self) -> bool:
        """Whether it was stopped, or whoever started it is gone and nobody would stop it."""
        return self._stopped.is_set() or os.getppid() != self._parent

    async def _send_open(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        for index in range(self._plan.requests):
            due = due_s(self._plan, index)
            # Without a pause nothing is sent, and no answer read, once the load is behind.
            await asyncio.sleep(max(0.0, self._started + due - time.perf_counter()))
            if self._is_over():
                break
            task = asyncio.create_task(self._send_one(index, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _send_closed(self) -> None:
        left = iter(range(self._plan.requests))

        async def send_in_turn() -> None:
            for index in left:
                if self._is_over():
                    return
                await self._send_one(index, time.perf_counter() - self._started)

        await asyncio.gather(*(send_in_turn() for _ in range(self._plan.connections)))

    async def _send_one(self, index: int, due: float) -> None:
        image = index % len(self._requests)
        try:
            answer: RawAnswer | Exception = await self._sender.send(self._requests[image])
        except (OSError, ValueError) as error:
            answer = error
        ended_s = time.perf_counter()
        self._answers.append((due, image, ended_s, answer))
        if self._plan.limit_ms is not None:
            answered = isinstance(answer, RawAnswer) and answer.status == 200
            late = not answered or ended_s - self._started - due > self._plan.limit_ms / 1000
            if self._watch.add(late):
                self._stopped.set()

    def _describe(
        self, due: float, image: int, ended_s: float, answer: RawAnswer | Exception
    ) -> Sample:
        start = self._started + due
        if isinstance(answer, Exception):
            said, ms = f"{type(answer).__name__}: {answer}"[:200], (ended_s - start) * 1000
            return Sample(due_s=due, latency_ms=ms, status=0, image=image, error=said)
        return Sample(
            due_s=due,
            latency_ms=(answer.received_s - start) * 1000,
            sent_late_ms=max(0.0, (answer.sent_s - start) * 1000),
            status=answer.status,
            image=image,
            **_read_answer(answer),
        )


def _read_answer(answer: RawAnswer) -> dict[str, Any]:
    if answer.status != 200:
        return {"error": answer.body[:200].decode(errors="replace")}
    try:
        content = json.loads(answer.body)
        results = content.get("results") or [content]
        class_ids = tuple(int(result["class_id"]) for result in results)
        said = (result.get("confidence") for result in results)
        confidences = tuple(float(one) for one in said if isinstance(one, int | float))
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"error": f"no prediction: {answer.body[:160].decode(errors='replace')}"}
    generation, tag = content.get("generation"), content.get("version_tag")
    marked = answer.headers.get("x-generation", "")
    return {
        "generation": generation if isinstance(generation, int) else None,
        "version_tag": tag if isinstance(tag, str) else None,
        "header_generation": int(marked) if marked.isdigit() else None,
        "model_sha256": answer.headers.get("x-model-sha256"),
        "class_ids": class_ids,
        "confidences": confidences,
    }


def make_bodies(plan: LoadPlan) -> list[bytes]:
    """Return one finished multipart body for each image, or group of images."""
    names = list(plan.images)
    size = plan.batch_size
    groups = [names[start : start + size] for start in range(0, len(names), size)]
    field = "image" if size == 1 else "images"
    return [b"".join(_part(field, path) for path in group) + _END for group in groups if group]


_END = f"--{BOUNDARY}--\r\n".encode()
_TYPES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".bmp": "bmp", ".webp": "webp"}


def _part(field: str, path: Path) -> bytes:
    kind = _TYPES.get(path.suffix.lower(), "octet-stream")
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; '
        f'filename="{path.name}"\r\nContent-Type: image/{kind}\r\n\r\n'
    )
    return head.encode() + path.read_bytes() + b"\r\n"


def main(arguments: list[str]) -> int:
    """Run the plan of the first file and leave the result in the second."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this
    plan = LoadPlan.model_validate(json.loads(Path(arguments[0]).read_text()))
    result = Path(arguments[1])
    gc.disable()  # what is kept grows with every request; looking through it would hold up others
    run_load(plan, os.environ[KEY_VARIABLE], started=result.with_name(STARTED)).write(result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
