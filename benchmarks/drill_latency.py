"""Whether our load generator's latencies are those of an independent tool, h2load.

The same POST /predict at the same constant rate, against the same staging service, in
interleaved rounds: ours, h2load, ours, h2load, ... Each round gives the difference of the medians
and of the 90th percentiles. What two runs of the *same* tool differ by is the noise (A/A, the 90th
percentile of the differences of neighbouring rounds): the tools agree where the median difference
over the rounds lies within it.

h2load counts from the moment it sends, ours from the moment a request was due; both are shown, and
compared is like with like: from sending.

    python benchmarks/drill_latency.py [--rounds 12] [--requests 500] [--rate 100]

Exit code 3 when they disagree. Needs Debian's h2load: apt-get install nghttp2-client.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from figures import Row, show_rows

from opslib.core.config import load_config
from opslib.inference.images import pick_images
from opslib.ops.drill.copies import copy_experiment
from opslib.ops.drill.request import DrillRequest
from opslib.ops.drill.target import choose_other, find_live
from opslib.serving.keys import HEADER
from opslib.serving.live import LiveVersion
from opslib.serving.load import LoadPlan, start_load
from opslib.serving.load_sending import BOUNDARY, make_bodies
from opslib.serving.staging import RunningService, StagedService

CLIENTS = 10  # connections of h2load, opened one request apart, so that arrivals are even
WARM_UP = 20
SHARES = (0.5, 0.9)
LEAST_NOISE_MS = 0.05


@dataclass(frozen=True)
class Round:
    """One round's latencies in ms: ours from when due and from when sent, and h2load's."""

    due: np.ndarray
    sent: np.ndarray
    theirs: np.ndarray


def send_ours(service: RunningService, image: Path, requests: int, rate: float) -> tuple:
    """Return our latencies from when a request was due and from when it was sent."""
    plan = LoadPlan(url=service.url, images=(image,), requests=requests, rate_per_s=rate)
    with start_load(plan, service.key) as load:
        result = load.wait(10 + 2 * requests / rate)
    if result.failures:
        raise RuntimeError(f"a request failed: {result.failures[0].error}")
    kept = result.samples[WARM_UP:]
    due = np.array([one.latency_ms for one in kept])
    return due, due - np.array([one.sent_late_ms or 0.0 for one in kept])


def send_theirs(
    service: RunningService, body: Path, requests: int, rate: int, log: Path
) -> np.ndarray:
    """Return h2load's latencies in ms."""
    log.unlink(missing_ok=True)
    command = ["h2load", "--h1", f"--requests={requests}", f"--clients={CLIENTS}", "--rate=1"]
    command += [f"--rate-period={1000 // rate}ms", f"--rps={rate / CLIENTS}", f"--data={body}"]
    command += [f"--header={HEADER}: {service.key}", f"--log-file={log}"]
    command += [f"--header=Content-Type: multipart/form-data; boundary={BOUNDARY}"]
    subprocess.run([*command, f"{service.url}/predict"], check=True, capture_output=True)
    rows = sorted(tuple(map(int, line.split()[:3])) for line in log.read_text().splitlines())
    if any(status != 200 for _, status, _ in rows) or len(rows) != requests:
        raise RuntimeError(f"h2load: {len(rows)} answers, not all of them 200")
    return np.array([micros / 1000 for _, _, micros in rows[WARM_UP:]])


def measure(service: RunningService, image: Path, arguments: argparse.Namespace) -> list[Round]:
    """Measure round by round, the order turned over each time."""
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        plan = LoadPlan(url=service.url, images=(image,), requests=1, rate_per_s=None)
        body.write_bytes(make_bodies(plan)[0])
        for number in range(arguments.rounds):
            order = ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours")
            found = {}
            for who in order:
                if who == "ours":
                    found["ours"] = send_ours(service, image, arguments.requests, arguments.rate)
                else:
                    found["theirs"] = send_theirs(
                        service, body, arguments.requests, arguments.rate, log
                    )
            rounds.append(Round(*found["ours"], found["theirs"]))
    return rounds


def noise_ms(values: Sequence[float]) -> float:
    """Return how far two runs of one tool lie apart nine times in ten."""
    gaps = [abs(one - other) for one, other in pairwise(values)]
    return max(LEAST_NOISE_MS, float(np.quantile(gaps, 0.9)))


def compare(rounds: list[Round]) -> list[Row]:
    """Compare like with like, and say what is compared."""
    rows = []
    for share in SHARES:
        theirs = [float(np.quantile(one.theirs, share)) for one in rounds]
        sent = [float(np.quantile(one.sent, share)) for one in rounds]
        due = [float(np.quantile(one.due, share)) for one in rounds]
        noise = max(noise_ms(theirs), noise_ms(sent))
        gap = statistics.median(a - b for a, b in zip(sent, theirs, strict=True))
        name = f"p{share * 100:.0f}"
        rows.append(
            Row(
                f"{name}, ours against h2load's, from sending, ms",
                f"{statistics.median(sent):.2f} / {statistics.median(theirs):.2f}: {gap:+.2f}",
                f"within ±{noise:.2f} (A/A)",
                abs(gap) <= noise,
            )
        )
        rows.append(
            Row(
                f"{name}, ours from when it was due, ms",
                f"{statistics.median(due):.2f} "
                f"({statistics.median(a - b for a, b in zip(due, sent, strict=True)):+.2f})",
                "reported",
                True,
            )
        )
    return rows


def main() -> int:
    """Measure, compare and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rate", type=int, default=100)
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        print("drill_latency: h2load is not installed, skipped; apt-get install nghttp2-client")
        return 0
    config = load_config()
    image = pick_images(config, "val", None, limit=1).paths[0]
    stable = find_live(config)
    other = choose_other(config, DrillRequest(), LiveVersion(str(stable), None, None, None))
    with tempfile.TemporaryDirectory(prefix="pillops-latency-") as folder:
        copied = copy_experiment(config, stable, other, Path(folder).resolve())
        variables = {"RATE_LIMIT_PER_MIN": "1000000000", "LOG_LEVEL": "WARNING"}
        with StagedService(copied.config_path, variables=variables, overrides=False) as staged:
            rounds = measure(staged.running, image, arguments)
    rows = compare(rounds)
    title = (
        f"latency at {arguments.rate} requests a second, {arguments.rounds} rounds of "
        f"{arguments.requests}"
    )
    return show_rows(title, rows)


if __name__ == "__main__":
    sys.exit(main())
