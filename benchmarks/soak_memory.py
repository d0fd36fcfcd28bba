"""Does the service's memory stay what it is under requests of mixed sizes?

A service of the configured experiment is sent forms of one image and of sixteen, small pictures and
large ones, JPEG and PNG, by eight clients at a time, through both routes, so that runs of every
size occur. Its resident memory is read after 5,000 requests and again after 50,000.

    python benchmarks/soak_memory.py [--requests 50000]

Exit code 3 when it grew by more than 3 %, 1 when a request fails.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from figures import Row, show_rows
from PIL import Image
from rich.console import Console
from serving import Asker, copy_experiment

from opslib.core.config import load_config
from opslib.serving.load import LoadPlan
from opslib.serving.load_sending import make_bodies
from opslib.serving.staging import RunningService, start_service

CLIENTS, REQUESTS, STEP = 8, 50_000, 5_000
MAX_GROWTH_PCT = 3.0
SIDES = {48: 8, 80: 8, 160: 8, 320: 4, 640: 2, 1280: 1}  # pixels, and how often
BATCH, BATCH_SHARE = 16, 0.04

console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)


def make_forms(folder: Path) -> dict[str, list[bytes]]:
    """Return forms of one picture for `/predict`, as often as `SIDES` says, and of many for
    `/batch`."""
    paths = []
    for number, (side, count) in enumerate(SIDES.items()):
        for kind in ("jpg", "png"):
            coarse = np.random.default_rng(number).integers(0, 255, (12, 12, 3), dtype=np.uint8)
            path = folder / f"{side}.{kind}"
            Image.fromarray(coarse).resize((side, side)).save(path)
            paths += [path] * count
    random.Random(0).shuffle(paths)

    def bodies(size: int) -> list[bytes]:
        plan = LoadPlan(url="", images=tuple(paths), requests=1, rate_per_s=None, batch_size=size)
        return make_bodies(plan)

    return {"/predict": bodies(1), "/batch": bodies(BATCH)[:-1]}


def resident_mib(service: RunningService) -> float:
    """Resident memory of the service's process."""
    status = Path(f"/proc/{service.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def send(service: RunningService, forms: dict[str, list[bytes]], count: int, seed: int) -> None:
    """Send `count` requests over one connection, in an order of their own."""
    asker, chance = Asker(service), random.Random(seed)
    for _ in range(count):
        route = "/batch" if chance.random() < BATCH_SHARE else "/predict"
        asker.ask(route, chance.choice(forms[route]))


def main() -> int:
    """Send, read the memory every 5,000 requests, and print whether it grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=REQUESTS)
    steps = max(2, parser.parse_args().requests // STEP)
    found = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillops-memory-")))
        forms = make_forms(folder)
        path, _ = stack.enter_context(copy_experiment(load_config()))
        variables = {"RATE_LIMIT_PER_MIN": "100000000"}
        service = stack.enter_context(start_service(path, variables=variables))
        clients = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        for step in range(steps):
            seeds = range(step * CLIENTS, (step + 1) * CLIENTS)
            each = [clients.submit(send, service, forms, STEP // CLIENTS, one) for one in seeds]
            for one in each:
                one.result()
            found.append(resident_mib(service))
            console.print(f"{STEP * (step + 1):,} requests: {found[-1]:.1f} MiB")
    growth_pct = 100 * (found[-1] / found[0] - 1)
    what = f"resident memory, {STEP:,} to {STEP * steps:,} requests"
    bound = f"at most {MAX_GROWTH_PCT:g} %"
    row = Row(what, f"{growth_pct:+.1f} %", bound, growth_pct <= MAX_GROWTH_PCT)
    return show_rows("memory under requests of mixed sizes", [row])


if __name__ == "__main__":
    sys.exit(main())
