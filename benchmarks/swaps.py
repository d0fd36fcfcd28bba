"""What a swap costs those who ask meanwhile, with requests answered together and without.

Two services of the configured experiment, one that runs up to `service.max_batch` images together
and one that runs each by itself, get the same open-loop load in turn, each round in another order:
first nothing happens, then models are switched in with all checks and rolled back. A ratio is of
one round, so that what else the host does is in both of its sides.

    python benchmarks/swaps.py [--rounds 12] [--share 0.5]

Exit code 3 when a bound is missed, or a request failed or was answered by two models.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from batching import MIN_ROUNDS, console, estimate, show
from figures import Row, show_rows
from serving import copy_experiment, copy_with_card

from opslib.core.cards import card_path
from opslib.core.config import Config, load_config
from opslib.core.host import host_facts
from opslib.inference.images import pick_images
from opslib.ops.drill.run import measure_capacity
from opslib.ops.drill.windows import P99, Timings, Window
from opslib.serving.client import ServiceClient
from opslib.serving.load import LoadPlan, Sample, start_load
from opslib.serving.staging import RunningService, start_service

IMAGES, CONNECTIONS = 64, 64
QUIET_S, SETTLE_S, SWAPS = 2.0, 0.4, 3
LONGEST_S = 60.0
ALIKE = 1e-3  # between the probabilities of one model for one image


@dataclass(frozen=True)
class Arm:
    """A service of its own experiment, and the client that switches its models."""

    service: RunningService
    config: Config
    client: ServiceClient


@dataclass(frozen=True)
class Found:
    """p99 in ms while nothing happened and around swaps, and what went wrong."""

    quiet_ms: float
    swaps_ms: float
    requests: int
    failed: int
    mixed: int

    @property
    def ratio(self) -> float:
        """How many times the p99 of nothing happening."""
        return self.swaps_ms / self.quiet_ms


@contextmanager
def start_arm(loaded: Config, max_batch: int) -> Iterator[Arm]:
    """Yield a service that runs up to `max_batch` images together, on a copy of the experiment."""
    told = {"RATE_LIMIT_PER_MIN": "100000000", "LOG_LEVEL": "WARNING"}
    told["PILLSNAP_SERVICE__MAX_BATCH"] = str(max_batch)
    with ExitStack() as stack:
        path, config = stack.enter_context(copy_experiment(loaded))
        service = stack.enter_context(start_service(path, variables=told))
        client = stack.enter_context(ServiceClient(service.url, service.key, config.client))
        yield Arm(service, config, client)


def measure(arm: Arm, plan: LoadPlan) -> Found:
    """Load a service, swap and roll back, and sort the requests by what happened when they were
    due."""
    first, second = sorted(arm.config.export_dir.glob("model-*.onnx"))[:2]
    spans = []
    arm.client.reload(str(first))
    with start_load(plan, arm.service.key) as load:
        load.wait_started()
        spans.append((time.perf_counter(), QUIET_S))
        time.sleep(QUIET_S)
        for turn in range(SWAPS):
            fresh = copy_with_card(second, f"fresh-{turn}")
            for path in (fresh, first):
                began = time.perf_counter()
                arm.client.reload(str(path))
                time.sleep(SETTLE_S)
                spans.append((began, time.perf_counter() - began))
            for path in (fresh, card_path(fresh)):
                path.unlink(missing_ok=True)
        result = load.stop(LONGEST_S)
    windows = [
        Window("swap", began - result.started_clock_s, began - result.started_clock_s + length)
        for began, length in spans
    ]
    timings = Timings.of(result.samples)
    quiet_ms, swaps_ms = (p99_ms(timings, some) for some in (windows[:1], windows[1:]))
    mixed = count_mixed(result.samples)
    return Found(quiet_ms, swaps_ms, len(result.samples), len(result.failures), mixed)


def count_mixed(samples: Sequence[Sample]) -> int:
    """How many answers are not what the model that they name answers to their image otherwise, or
    name a generation that header or other answers put another model to."""
    good = [one for one in samples if not one.failed]
    asked, models = defaultdict[object, list[Sample]](list), dict[int | None, str | None]()
    for one in good:
        asked[one.model_sha256, one.image].append(one)
        models.setdefault(one.generation, one.model_sha256)
    usual = {
        key: (
            Counter(one.class_ids for one in some).most_common(1)[0][0],
            statistics.median(one.confidences[0] for one in some),
        )
        for key, some in asked.items()
    }

    def is_whole(one: Sample) -> bool:
        classes, confidence = usual[one.model_sha256, one.image]
        named = one.generation == one.header_generation
        alike = abs(one.confidences[0] - confidence) <= ALIKE and one.class_ids == classes
        return named and alike and models[one.generation] == one.model_sha256

    return sum(not is_whole(one) for one in good)


def p99_ms(timings: Timings, windows: Sequence[Window]) -> float:
    """The 99th percentile of the requests that were due in the windows."""
    return float(np.quantile(timings.latency_ms[timings.within(windows)], P99))


def main() -> int:
    """Measure in rounds and print whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--share", type=float, default=0.5, help="of the capacity of the slower")
    arguments = parser.parse_args()
    rounds, share = max(MIN_ROUNDS, arguments.rounds), arguments.share
    loaded = load_config()
    images = pick_images(loaded, "val", None, limit=IMAGES).paths
    with ExitStack() as stack:
        most = loaded.service.max_batch
        arms = {count: stack.enter_context(start_arm(loaded, count)) for count in (1, most)}
        plans = {
            count: LoadPlan(url=arm.service.url, images=images, requests=10**6, rate_per_s=None)
            for count, arm in arms.items()
        }
        capacity = min(
            measure_capacity(plans[count], arm.service.key, loaded.drill)
            for count, arm in arms.items()
        )
        rate = share * capacity
        console.print(
            f"{rate:.0f} requests a second, {share:.0%} of capacity, {host_facts().label}"
        )
        found: dict[int, list[Found]] = {count: [] for count in arms}
        for number in range(rounds):
            for count in random.sample(list(arms), len(arms)):
                plan = plans[count].model_copy(
                    update={"rate_per_s": rate, "connections": CONNECTIONS}
                )
                found[count].append(measure(arms[count], plan))
            said = [
                f"batches of {count}: {some[-1].quiet_ms:.1f} ms, swaps {some[-1].swaps_ms:.1f} ms"
                for count, some in found.items()
            ]
            console.print(f"round {number + 1}: {'; '.join(said)}")
    return show_rows(f"swaps with batches of {most} and of 1", list_rows(found[1], found[most]))


def list_rows(off: Sequence[Found], on: Sequence[Found]) -> list[Row]:
    """What batching changes, a ratio for each of `Found`'s figures, and what may never be."""
    rows = []
    for what, figure in (
        ("p99, nothing happening", "quiet_ms"),
        ("p99 around swaps", "swaps_ms"),
        ("p99 around swaps, in p99 of nothing happening", "ratio"),
    ):
        pairs = zip(off, on, strict=True)
        change = estimate([getattr(new, figure) / getattr(old, figure) for old, new in pairs])
        worse = change[1] > 1
        judged = figure != "quiet_ms"
        limit = "interval reaches 1.00" if judged else "reported"
        rows.append(Row(f"{what}, with / without", show(change), limit, not (judged and worse)))
    for what, figure in (("failed", "failed"), ("of two models", "mixed")):
        wrong = sum(getattr(one, figure) for one in (*off, *on))
        total = sum(one.requests for one in (*off, *on))
        rows.append(Row(f"{what}, of {total:,} requests", f"{wrong}", "0", wrong == 0))
    return rows


if __name__ == "__main__":
    sys.exit(main())
