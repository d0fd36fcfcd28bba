"""How many requests a second one instance answers here, and how many instances a peak needs.

A service of the configured experiment is started on a free loopback port, with its state and logs
in a folder of its own. It is kept busy by more and more connections (what it answers then is its
capacity), then sent images at constant rates, whose latency counts from when each was due. The
load comes from this host and takes its share of the processors, so that the answer is cautious.

    python benchmarks/capacity.py [--peak 500] [--requests 1000]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile

from rich.console import Console
from rich.table import Table

from opslib.core.config import load_config
from opslib.core.errors import ParameterError
from opslib.core.formatting import format_ms, plural
from opslib.core.host import host_facts
from opslib.inference.find_model import find_onnx
from opslib.inference.images import pick_images
from opslib.serving.load import LoadPlan, LoadResult, start_load
from opslib.serving.staging import RunningService, start_service

DEFAULT_SHARE = 0.6
DEFAULT_SPARE = 1
CONNECTIONS = (1, 2, 4, 8, 16)
SHARES = (0.3, 0.5, DEFAULT_SHARE, 0.7, 0.8, 0.9)
IMAGES = 192
P99_SAMPLES = 662  # fewer do not support a 99th percentile


def instances_needed(
    peak_per_s: float,
    capacity_per_s: float,
    *,
    share: float = DEFAULT_SHARE,
    spare: int = DEFAULT_SPARE,
) -> int:
    """Return the instances that carry `peak_per_s` requests a second.

    Args:
        peak_per_s: requests a second at the busiest time.
        capacity_per_s: requests a second that one instance answers when it is kept busy.
        share: how much of that an instance shall carry, so that its latency stays low.
        spare: instances that may be down or changing their model at that time.

    Raises:
        ParameterError: a value is impossible.
    """
    if not (peak_per_s >= 0 and capacity_per_s > 0 and math.isfinite(peak_per_s / capacity_per_s)):
        raise ParameterError("peak and capacity are requests a second; the capacity is above 0")
    if not 0 < share <= 1 or spare < 0:
        raise ParameterError("share lies above 0 and up to 1, spare is 0 or more")
    return max(1, math.ceil(peak_per_s / (share * capacity_per_s))) + spare


def send(service: RunningService, plan: LoadPlan) -> LoadResult:
    """Send a load and return what came of it."""
    with start_load(plan, service.key) as load:
        return load.wait(600)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peak", type=float, help="requests a second at the busiest time")
    parser.add_argument("--requests", type=int, default=1000, help="for each line of the table")
    arguments = parser.parse_args()
    config = load_config()
    images = pick_images(config, "val", None, limit=IMAGES).paths
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    console.print(f"one instance, {find_onnx(config).resolve().name}, {host_facts().label}")
    table = Table()
    table.add_column("load")
    for name in ("answers/s", "p50 ms", "p99 ms", "failed"):
        table.add_column(name, justify="right")

    def add(what: str, result: LoadResult) -> None:
        p99 = result.latency_ms(0.99) if len(result.samples) >= P99_SAMPLES else None
        figures = (format_ms(result.latency_ms(0.5)), format_ms(p99), str(len(result.failures)))
        table.add_row(what, f"{result.rate_per_s:,.0f}", *figures)

    with tempfile.TemporaryDirectory(prefix="pillops-capacity-") as folder:
        variables = {
            "PILLSNAP_EXP_DIR": folder,
            "PILLSNAP_EXPORT__OUT_DIR": str(config.export_dir),
            "RATE_LIMIT_PER_MIN": "100000000",
            "LOG_LEVEL": "WARNING",
        }
        with start_service(config.source, variables=variables) as service:
            warm = LoadPlan(url=service.url, images=images, requests=200, rate_per_s=None)
            send(service, warm)
            rates = []
            for connections in CONNECTIONS:
                changes = {"requests": arguments.requests, "connections": connections}
                result = send(service, warm.model_copy(update=changes))
                add(f"kept busy by {plural(connections, 'connection')}", result)
                rates.append(result.rate_per_s)
            capacity = max(rates)
            table.add_section()
            for share in SHARES:
                changes = {"requests": arguments.requests, "rate_per_s": share * capacity}
                plan = warm.model_copy(update={**changes, "connections": 64})
                add(f"{share:.0%} of {capacity:,.0f}/s", send(service, plan))
    console.print(table)
    if arguments.peak is not None:
        count = instances_needed(arguments.peak, capacity)
        rule = f"{DEFAULT_SHARE:.0%} of {capacity:,.0f}/s each, {DEFAULT_SPARE} to spare"
        console.print(f"{arguments.peak:,.0f} requests a second: {count} instances ({rule})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
