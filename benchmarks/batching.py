"""What answering in one run what waits gains, on a network of the size that is served for real.

Two services of one EfficientNetV2-S with random weights, one that runs up to `service.max_batch`
images together and one that runs each by itself, are kept busy by 32 connections in turn, then
asked by a lone client, whose p50 must not move. What there is to be gained says a bare loop: the
time of an image in a run of one, over that in a full run, on one thread. All of it in each round,
in another order; a ratio is of one round.

    python benchmarks/batching.py [--rounds 7]

Exit code 3 when a bound is missed, 1 when a request fails. Needs Debian's h2load:
apt-get install nghttp2-client.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from efficientnet import IMG_SIZE, export_network
from figures import Row, show_rows
from peer_services import Arm
from rich.console import Console
from serving import Asker

from opslib.core.config import load_config
from opslib.core.host import host_facts
from opslib.inference.engine import Engine, EngineRequest, session_settings
from opslib.inference.images import pick_images
from opslib.inference.opening import open_engine
from opslib.serving.load import LoadPlan
from opslib.serving.load_sending import make_bodies
from opslib.serving.staging import RunningService, start_service
from opslib.telling.doors import run_door
from opslib.timing.stats import trimmed_interval, trimmed_mean

CONNECTIONS, REQUESTS, LONE, BARE_RUNS = 32, 96, 9, 2
MIN_ROUNDS = 5  # that an interval takes
MIN_SHARE, MIN_RATIO = 0.90, 0.98  # of the bare loop's gain; of the requests without batching
MAX_LONE = 1.05  # where the interval does not hold 1

console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)


def bare_gain(engine: Engine, count: int) -> float:
    """Time of an image run by itself over that of one among `count`."""

    def image_ms(images: int) -> float:
        batch = np.zeros((images, 3, IMG_SIZE, IMG_SIZE), dtype=np.float32)
        engine.run(batch)
        started = time.perf_counter()
        for _ in range(BARE_RUNS * count // images):
            engine.run(batch)
        return 1000 * (time.perf_counter() - started) / (BARE_RUNS * count)

    sizes = random.sample([1, count], 2)
    found = {images: image_ms(images) for images in sizes}
    return found[1] / found[count]


def lone_ms(service: RunningService, body: bytes) -> float:
    """p50 of a client that nobody is beside."""
    asker, times = Asker(service), []
    asker.ask("/predict", body)
    for _ in range(LONE):
        started = time.perf_counter()
        asker.ask("/predict", body)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def estimate(values: Sequence[float]) -> tuple[float, float, float]:
    """The middle of positive ratios and the ends of its 95 % interval."""
    logs = [math.log(value) for value in values]
    around = trimmed_interval(logs)
    return math.exp(trimmed_mean(logs)), math.exp(around.low), math.exp(around.high)


def show(found: tuple[float, float, float]) -> str:
    """Write an estimate with its interval."""
    return f"{found[0]:.3f} ({found[1]:.3f} to {found[2]:.3f})"


def main() -> int:
    """Measure in rounds and print whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = max(MIN_ROUNDS, parser.parse_args().rounds)
    config = load_config()
    most = config.service.max_batch
    images = pick_images(config, "val", None, limit=1).paths
    body = make_bodies(LoadPlan(url="", images=images, requests=1, rate_per_s=None))[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillops-batching-")))
        model, form = folder / "export" / "efficientnet_v2_s.onnx", folder / "form"
        model.parent.mkdir()
        millions = export_network(model)
        form.write_bytes(body)
        console.print(f"{millions:.1f} million parameters, batches of {most}, {host_facts().label}")
        path = folder / "config.yaml"
        path.write_text(
            f"paths: {{exp_dir: ., data_root: {config.data_root}}}\nonnx: {{providers: [CPU]}}\n"
        )
        arms, services = dict[int, Arm](), dict[int, RunningService]()
        for count in (1, most):
            told = {"RATE_LIMIT_PER_MIN": "100000000", "MODEL_PATH": str(model)}
            told["PILLSNAP_SERVICE__MAX_BATCH"] = str(count)
            service = stack.enter_context(start_service(path, variables=told))
            arms[count] = Arm(f"batches of {count}", service.url, service.pid, service.key)
            services[count] = service
        settings = replace(session_settings(config), intra_op_num_threads=1)
        request = EngineRequest("onnx", model, ("CPU",), settings=settings)
        engine = stack.enter_context(open_engine(request))
        gains, bare, alone = [], [], []
        for number in range(rounds + 1):
            rates, lone = dict[int, float](), dict[int, float]()

            def visit(count: int, rates: dict[int, float], lone: dict[int, float]) -> None:
                arms[count].rate_per_s = REQUESTS
                rates[count] = arms[count].load(form, CONNECTIONS, 1).rate_per_s
                lone[count] = lone_ms(services[count], body)

            looks = [partial(visit, count, rates, lone) for count in arms]
            looks.append(lambda: bare.append(bare_gain(engine, most)))
            for look in random.sample(looks, len(looks)):
                look()
            gains.append(rates[most] / rates[1])
            alone.append(lone[most] / lone[1])
            said = f"{rates[1]:.1f} requests/s each by itself, {rates[most]:.1f} together; bare "
            said += f"{bare[-1]:.3f}; a lone client {lone[1]:.0f} and {lone[most]:.0f} ms"
            console.print(f"{f'round {number}' if number else 'warming up'}: {said}")
        gain, share = (
            estimate(gains[1:]),
            estimate([a / b for a, b in zip(gains, bare, strict=True)][1:]),
        )
        beside = estimate(alone[1:])
    return show_rows(
        f"batches of {most} under {CONNECTIONS} connections, {rounds} rounds (in brackets: 95 %)",
        [
            Row(
                "requests/s, together / each by itself",
                show(gain),
                f"{MIN_RATIO}",
                gain[0] >= MIN_RATIO,
            ),
            Row("the bare loop's gain", show(estimate(bare[1:])), "none", None),
            Row("ours / the bare loop's", show(share), f"{MIN_SHARE}", share[0] >= MIN_SHARE),
            Row(
                "p50 of a lone client, with / without",
                show(beside),
                f"1 within the interval, or below {MAX_LONE}",
                beside[1] <= 1 or beside[0] <= MAX_LONE,
            ),
        ],
    )


if __name__ == "__main__":
    run_door(main)
