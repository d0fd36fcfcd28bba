"""What does the common desk cost? Publishing, and the page of many runs, on a real S3 server here.

The server is moto's, in a process of its own on this host, so that the time is that of both and of
no network. The page is made by a host that has read no record before, by another one, then after
one run more.

    python benchmarks/desk.py [--runs 1000]

Exit code 3 when a figure is over its bound.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reporting import Figure, show, write_runs

from opslib.core.store import open_store
from opslib.runs.catalogue import scan_runs
from opslib.runs.desk import Desk, build_desk_index, record_name
from opslib.runs.publish import publish_run

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.s3 import S3, start_s3

PUBLISHED = 20


def timed(s3: S3, bucket: str, work: Callable[[], object]) -> tuple[float, int]:
    """Return the seconds that `work` takes and the requests that the server had from it."""
    before, started = len(s3.requests(bucket)), time.perf_counter()
    work()
    return time.perf_counter() - started, len(s3.requests(bucket)) - before


def measure(s3: S3, folder: Path, count: int) -> list[Figure]:
    """Return what publishing and the page cost with `count` runs at the desk."""
    bucket = s3.make_bucket()
    url = f"s3://{bucket}/desk"
    one, two, three = (
        Desk(open_store(url), name, folder / name) for name in ("gpu-1", "gpu-2", "gpu-3")
    )
    write_runs(one.root, count)
    rows = scan_runs(one.root)

    client = s3.client()

    def put(place: str) -> None:
        client.put_object(
            Bucket=bucket,
            Key=f"desk/{record_name(one.host, place)}",
            Body=(one.root / place).read_bytes(),
        )

    def publish_some() -> None:
        for row in rows[:PUBLISHED]:
            publish_run(one, row)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, [row.record_path for row in rows[PUBLISHED:]]))
    publish_s, publish_requests = timed(s3, bucket, publish_some)
    nothing_s, nothing_requests = timed(s3, bucket, lambda: build_desk_index(two))
    next_s, next_requests = timed(s3, bucket, lambda: build_desk_index(three))
    late = write_runs(folder / "late", count + 1)
    source = next(row for row in scan_runs(folder / "late") if row.id == late.id)
    publish_run(one, source, root=folder / "late")
    more_s, more_requests = timed(s3, bucket, lambda: build_desk_index(two))
    return [
        ("one run published", publish_s / PUBLISHED, None, "s"),
        ("its requests", publish_requests / PUBLISHED, None, ""),
        (f"page of {count:,} runs, from nothing", nothing_s, 20.0, "s"),
        ("its requests", nothing_requests, None, ""),
        ("the same, by another host after that", next_s, 3.0, "s"),
        ("its requests", next_requests, 10.0, ""),
        ("page after one run more", more_s, 1.0, "s"),
        ("its requests", more_requests, 10.0, ""),
    ]


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, start_s3(Path(name)) as s3:
        os.environ.update(s3.environment)
        figures = measure(s3, Path(name), options.runs)
    return 0 if show(figures) else 3


if __name__ == "__main__":
    sys.exit(main())
