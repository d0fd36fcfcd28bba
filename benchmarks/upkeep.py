"""What the nightly job costs: compressing logs against `find -exec gzip`, planning, starting.

1 GB of access-log lines is compressed by `scripts/maintenance.sh` and by `find … -exec gzip {} +`
in turn, each from fresh copies; 20,000 files are planned; an empty experiment is planned from a
cold process.

    python benchmarks/upkeep.py [--megabytes 1000] [--rounds 2]

Exit code 3 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import Row, show_rows

from opslib.core.config import load_config
from opslib.upkeep.maintenance import plan_maintenance

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "maintenance.sh"
FILES = 20_000
LOGS = 8
DAY_S = 86_400
STARTS = 9


def make_experiment(folder: Path) -> Path:
    """Write a configuration of an empty experiment and return its path."""
    (folder / "exp").mkdir(parents=True)
    path = folder / "config.yaml"
    path.write_text(
        "paths: {exp_dir: exp, data_root: images}\nmaintenance: {disks: [/]}\n"
        "client: {url: 'http://127.0.0.1:9'}\n"
    )
    return path


def make_block(size: int) -> bytes:
    """Return access-log lines as the service writes them, of about `size` bytes."""
    rng = random.Random(0)
    lines: list[str] = []
    length = 0
    while length < size:
        second = rng.randrange(DAY_S)
        fields = {
            "at_utc": f"2026-11-{rng.randint(1, 24):02d}T{second // 3600:02d}:"
            f"{second // 60 % 60:02d}:{second % 60:02d}.{rng.randrange(1000):03d}+00:00",
            "method": "POST",
            "route": rng.choice(["/predict", "/predict", "/predict", "/batch", "/health"]),
            "status": rng.choice([200] * 30 + [401, 413, 422, 503]),
            "client": f"10.0.{rng.randrange(8)}.{rng.randrange(256)}",
            "bytes_in": rng.randrange(20_000, 400_000),
            "total_ms": round(rng.lognormvariate(2, 0.5), 3),
            "request_id": f"{rng.getrandbits(64):016x}",
            "generation": rng.randrange(1, 9),
        }
        lines.append(json.dumps(fields) + "\n")
        length += len(lines[-1])
    return "".join(lines).encode()


def fill_logs(folder: Path, block: bytes, megabytes: int) -> int:
    """Write logs of ten days ago into `folder` and return their size."""
    folder.mkdir(parents=True)
    each = megabytes * 1_000_000 // LOGS
    old = time.time() - 10 * DAY_S
    for number in range(LOGS):
        path = folder / f"job{number}.out"
        with path.open("wb") as file:
            while file.tell() < each:
                file.write(block[: each - file.tell()])
            file.flush()
            os.fsync(file.fileno())
        os.utime(path, (old, old))
    return each * LOGS


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds `work` took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_gzip(megabytes: int, rounds: int) -> list[Row]:
    """Compress the same logs in both ways, in turn."""
    block = make_block(16_000_000)
    ours_s, plain_s, packed = [], [], {}
    size = 0
    for turn in range(rounds):
        arms = ["ours", "plain"] if turn % 2 == 0 else ["plain", "ours"]
        for arm in arms:
            with tempfile.TemporaryDirectory(prefix="pillops-upkeep-") as name:
                config = make_experiment(Path(name))
                logs = Path(name) / "exp" / "logs"
                size = fill_logs(logs, block, megabytes)
                if arm == "ours":
                    command: list[str | Path] = [SCRIPT, "--config", config]
                else:
                    command = ["find", logs, "-name", "*.out", "-exec", "gzip", "{}", "+"]

                def work(command: list[str | Path] = command) -> None:
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

                (ours_s if arm == "ours" else plain_s).append(timed(work))
                found = list(logs.rglob("*.gz"))
                packed[arm] = sum(path.stat().st_size for path in found)
                if len(found) != LOGS or list(logs.glob("*.out")):
                    raise RuntimeError(f"{arm}: {len(found)} archives of {LOGS} logs")
    ratio = statistics.median(a / b for a, b in zip(plain_s, ours_s, strict=True))
    speeds = [size / 1e6 / statistics.median(one) for one in (ours_s, plain_s)]
    return [
        Row(
            f"compress {size / 1e6:.0f} MB of logs, find -exec gzip / ours",
            f"{ratio:.1f} x ({speeds[1]:.0f} against {speeds[0]:.0f} MB/s)",
            ">= 3 x",
            ratio >= 3,
        ),
        Row(
            "size of the archives, ours / gzip",
            f"{packed['ours'] / packed['plain']:.2f} x",
            "reported",
            True,
        ),
    ]


def measure_plan() -> list[Row]:
    """Plan an experiment of 20,000 files, all but a few of which are due."""
    with tempfile.TemporaryDirectory(prefix="pillops-upkeep-") as name:
        path = make_experiment(Path(name))
        exp, old = Path(name) / "exp", time.time() - 20 * DAY_S
        kinds = (
            "logs/{}.out",
            "logs/archive/{}.out.gz",
            "checkpoints/last_{}.pt",
            "reports/{}.json",
        )
        for number in range(FILES):
            file = exp / kinds[number % len(kinds)].format(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
            os.utime(file, (old - number * 60, old - number * 60))
        config = load_config(path, {})
        took = [timed(lambda: plan_maintenance(config)) for _ in range(3)]
        steps = len(plan_maintenance(config).plan.actions)
    worst = max(took)
    what = f"plan of {FILES:,} files, {steps:,} steps, worst of {len(took)}"
    return [Row(what, f"{worst:.2f} s", "<= 2 s", worst <= 2)]


def measure_start() -> list[Row]:
    """Start the script on an empty experiment."""
    with tempfile.TemporaryDirectory(prefix="pillops-upkeep-") as name:
        command = [SCRIPT, "--dry-run", "--config", make_experiment(Path(name))]
        took = [
            timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
            for _ in range(STARTS)
        ]
    value = statistics.median(took)
    what = f"scripts/maintenance.sh --dry-run, nothing to do, median of {STARTS}"
    return [Row(what, f"{value:.2f} s", "<= 0.4 s", value <= 0.4)]


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    if shutil.which("gzip") is None:
        sys.exit("gzip: not installed")
    os.environ.setdefault("PILLSNAP_PYTHON", sys.executable)
    rows = measure_start() + measure_plan() + measure_gzip(arguments.megabytes, arguments.rounds)
    return show_rows("upkeep", rows)


if __name__ == "__main__":
    sys.exit(main())
