"""What serving costs and whether a swap is noticed, on a copy of the configured experiment.

CPU seconds per image of the whole server process against a bare loop of decoding and
`session.run`, in interleaved rounds; swaps and rollbacks under an open-loop load from another
process at half the measured capacity; the longest event-loop stall while a model is loaded.

    python benchmarks/serving.py [--requests 2400] [--rounds 9]

Exit code 3 when a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from figures import Row, show_rows

from opslib.core.cards import card_path, list_files, read_card
from opslib.core.config import Config, load_config
from opslib.core.models import find_model_files
from opslib.inference.engine import EngineRequest, session_settings
from opslib.inference.find_model import find_onnx
from opslib.inference.images import pick_images
from opslib.inference.opening import open_engine
from opslib.inference.preprocess import preprocess
from opslib.serving.client import ServiceClient
from opslib.serving.keys import HEADER, make_key
from opslib.serving.load import LoadPlan, LoadResult, Sample, start_load
from opslib.serving.load_sending import make_bodies
from opslib.serving.service import Service
from opslib.serving.settings import ServiceSettings, load_settings
from opslib.serving.staging import RunningService, start_service

IMAGES = 192
BIG_WIDTH = 8000  # a square layer of this width holds 256 MB of weights
TICK_S = 0.001


@contextmanager
def copy_experiment(config: Config) -> Iterator[tuple[Path, Config]]:
    """Yield the configuration of a copy, whose state and models may be changed."""
    with tempfile.TemporaryDirectory(prefix="pillops-serving-") as name:
        folder = Path(name)
        shutil.copytree(config.export_dir, folder / "exp" / "export", symlinks=True)
        path = folder / "config.yaml"
        path.write_text(
            f"paths: {{exp_dir: exp, data_root: {config.data_root}}}\nonnx: {{providers: [CPU]}}\n"
        )
        yield path, load_config(path, {})


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


class Asker:
    """One keep-alive connection that sends finished requests, one after the other."""

    def __init__(self, service: RunningService) -> None:
        host, port = service.url.removeprefix("http://").split(":")
        self._connection = socket.create_connection((host, int(port)))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._key = service.key

    def ask(self, route: str, body: bytes) -> None:
        """Send one request in one write and read its answer."""
        head = (
            f"POST {route} HTTP/1.1\r\nHost: bench\r\n{HEADER}: {self._key}\r\n"
            "Content-Type: multipart/form-data; boundary=pillops-load\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._connection.sendall(head.encode() + body)
        answer = http.client.HTTPResponse(self._connection)
        answer.begin()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{route}: {answer.status}")


def measure_cpu(
    service: RunningService, config: Config, images: tuple[Path, ...], rounds: int
) -> list[Row]:
    """Compare the server's CPU seconds per image with a bare loop's, round by round."""
    settings = replace(session_settings(config), intra_op_num_threads=1)
    request = EngineRequest("onnx", find_onnx(config), settings=settings)
    asker, rows = Asker(service), []
    with open_engine(request) as engine:
        size = engine.facts.input_shape[-1] or 224
        for batch_size, route, bound in ((1, "/predict", 0.70), (16, "/batch", 0.90)):
            plan = LoadPlan(
                url="", images=images, requests=1, rate_per_s=None, batch_size=batch_size
            )
            bodies = make_bodies(plan)
            names = [str(path) for path in images]
            bare_ms, served_ms = [], []
            for _ in range(rounds + 1):
                started = time.process_time()
                for first in range(0, len(names), batch_size):
                    engine.run(preprocess(names[first : first + batch_size], size))
                bare_ms.append(1000 * (time.process_time() - started) / len(names))
                before = cpu_s(service.pid)
                for body in bodies:
                    asker.ask(route, body)
                served_ms.append(1000 * (cpu_s(service.pid) - before) / len(names))
            pairs = list(zip(bare_ms[1:], served_ms[1:], strict=True))
            ratio = statistics.median(bare / served for bare, served in pairs)
            value = (
                f"{ratio:.2f} (bare {statistics.median(bare_ms[1:]):.2f} ms, "
                f"server {statistics.median(served_ms[1:]):.2f} ms)"
            )
            rows.append(
                Row(
                    f"CPU per image, bare / {route} x{batch_size}",
                    value,
                    f">= {bound}",
                    ratio >= bound,
                )
            )
    return rows


def measure_swap(
    service: RunningService, config: Config, images: tuple[Path, ...], requests: int
) -> list[Row]:
    """Swap and roll back under half the capacity; check every single answer."""
    closed = LoadPlan(url=service.url, images=images, requests=1000, rate_per_s=None, connections=4)
    with start_load(closed, service.key) as load:
        capacity = load.wait(120).rate_per_s
    first, second = sorted(config.export_dir.glob("model-*.onnx"))[:2]
    expected = {}
    with ServiceClient(service.url, service.key, config.client) as client:
        for path in (second, first):
            client.reload(str(path))
            plan = closed.model_copy(update={"requests": len(images), "connections": 1})
            with start_load(plan, service.key) as load:
                answers = {sample.image: sample.class_ids for sample in load.wait(60).samples}
            expected[find_model_files(path).digest()] = answers
        plan = closed.model_copy(
            update={"requests": requests, "rate_per_s": capacity / 2, "connections": 64}
        )
        full_ms, back_ms, asker = [], [], Asker(service)
        body = make_bodies(closed)[0]
        with start_load(plan, service.key) as load:
            turn = 0
            while load.running:
                fresh = copy_with_card(second, f"fresh-{turn}")
                started = time.perf_counter()
                client.reload(str(fresh))
                full_ms.append((time.perf_counter() - started) * 1000)
                time.sleep(0.3)
                started = time.perf_counter()
                client.reload(str(first))
                asker.ask("/predict", body)
                back_ms.append((time.perf_counter() - started) * 1000)
                time.sleep(0.3)
                fresh.unlink()
                card_path(fresh).unlink(missing_ok=True)
                turn += 1
            result = load.wait(120)
    mixed = [one for one in result.samples if one.status == 200 and not _is_whole(one, expected)]
    seen = len({one.generation for one in result.samples})
    failed = len(result.failures)
    for one in result.failures[:3]:
        print(f"failed: {one.status} {one.error}", file=sys.stderr)
    return [
        Row(
            f"failed of {requests} requests, {seen} generations, {capacity / 2:.0f}/s",
            f"{failed}",
            "0 of >= 2,000",
            failed == 0 and requests >= 2000,
        ),
        Row("answers that mix generations", str(len(mixed)), "0", not mixed),
        Row(
            f"latency under swaps, p50 / p99 / worst ({len(full_ms)} full swaps)",
            _describe_latency(result),
            "reported",
            True,
        ),
        Row(
            "full swap with all checks, median ms",
            f"{statistics.median(full_ms):.0f}",
            "reported",
            True,
        ),
        Row(
            f"rollback, POST to first new answer, worst of {len(back_ms)}, ms",
            f"{max(back_ms):.1f}",
            "<= 100",
            max(back_ms) <= 100,
        ),
    ]


def copy_with_card(model: Path, stem: str) -> Path:
    """Return a copy of a model without sidecars beside it, under another name, with its card."""
    copy = model.with_name(f"{stem}.onnx")
    copy.write_bytes(model.read_bytes())
    card = read_card(model)
    if card is not None:
        files = list_files(find_model_files(copy))
        card.model_copy(update={"files": files}).write(card_path(copy))
    return copy


def _is_whole(sample: Sample, expected: dict[str, dict[int, tuple[int, ...]]]) -> bool:
    if sample.generation != sample.header_generation or sample.model_sha256 is None:
        return False
    return expected[sample.model_sha256][sample.image] == sample.class_ids


def _describe_latency(result: LoadResult) -> str:
    shares = (0.5, 0.99, 1.0)
    return " / ".join(f"{result.latency_ms(share):.1f}" for share in shares) + " ms"


def write_big_model(path: Path, size: int, classes: int) -> Path:
    """Write a classifier of 256 MB whose input is `size` pixels."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"a": (3, BIG_WIDTH), "b": (BIG_WIDTH, BIG_WIDTH), "c": (BIG_WIDTH, classes)}
    weights = [
        numpy_helper.from_array(
            rng.standard_normal(shape, dtype=np.float32) / np.float32(shape[0] ** 0.5), name
        )
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "a"], ["x"]),
        helper.make_node("MatMul", ["x", "b"], ["y"]),
        helper.make_node("MatMul", ["y", "c"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, size, size])
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])
    graph = helper.make_graph(nodes, "big", [image], [answer], weights)
    opset = [helper.make_opsetid("", 18)]
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


async def longest_stall_ms(service: Service, path: Path | None) -> float:
    """Return the longest time the event loop was held up while `path` was switched in."""
    worst = 0.0
    stop = False

    async def tick() -> None:
        nonlocal worst
        while not stop:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            worst = max(worst, time.perf_counter() - due)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.1)
    if path is None:
        await asyncio.sleep(1.0)
    else:
        await service.reloader.reload(str(path))
    await asyncio.sleep(0.1)
    stop = True
    await ticking
    return worst * 1000


def measure_stalls(settings: ServiceSettings) -> list[Row]:
    """Measure the event loop in this process: idle, the demo model, 256 MB."""
    config = settings.config
    service = Service(settings)
    try:
        first, second = sorted(config.export_dir.glob("model-*.onnx"))[:2]
        service.reloader.start_with(first)
        current = service.generations.require().model
        classes = current.contract.num_classes or 2
        big = write_big_model(config.export_dir / "big.onnx", current.img_size, classes)
        rows = []
        for what, path in (("idle", None), (second.name, second), ("a 256 MB model", big)):
            stalls = []
            for _ in range(3):
                service.reloader.start_with(first)
                service.generations.capacity = 1
                stalls.append(asyncio.run(longest_stall_ms(service, path)))
            value = f"{statistics.median(stalls):.1f}, worst {max(stalls):.1f}"
            rows.append(Row(f"event-loop stall, {what}, ms", value, "reported", True))
        return rows
    finally:
        service.close()


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2400)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    loaded = load_config()
    images = pick_images(loaded, "val", None, limit=IMAGES).paths
    key = make_key()
    with copy_experiment(loaded) as (path, config):
        variables = {"API_KEY": key, "RATE_LIMIT_PER_MIN": "100000000", "LOG_LEVEL": "WARNING"}
        with start_service(path, variables=variables) as service:
            rows = measure_cpu(service, config, images, arguments.rounds)
            rows += measure_swap(service, config, images, arguments.requests)
        os.environ["API_KEY"] = key
        rows += measure_stalls(load_settings(config))
    return show_rows(f"serving {find_onnx(loaded).resolve().name}", rows)


if __name__ == "__main__":
    sys.exit(main())
