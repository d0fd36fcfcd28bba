"""What our checks cost beside the bare transfer: a release of 500 MB goes into a store and is
verified there, beside `s3fs.put` of the same file and a plain streamed read of the same object.

The store is moto's server on this host, in a process of its own. Both sides are processes, timed
from their first request to their last; they take turns, and go first in turn. A figure is the rate
of ours as a share of the other's, the trimmed mean over rounds with its 95 % interval. Here no
network's delay hides a check, and the server takes one of the host's cores: a real store shows
higher shares. A plain read is what `s3fs` opens, block by block; our own read, in one request, is
faster and is shown beside it.

    python benchmarks/release_store.py [--rounds 6] [--folder DIR]

Exit code 3 when a share is below its bound, or a process needs more memory than it may.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from figures import Row, show_rows
from release import write_model

from opslib.core.config import load_config
from opslib.core.formatting import format_bytes
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
from opslib.timing.stats import trimmed_interval, trimmed_mean

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.s3 import S3, start_s3  # noqa: E402

MIN_SHARE = 0.8
MAX_BYTES = 200_000_000
BEGIN = """
import sys, time
from pathlib import Path
def end(started):
    took = time.perf_counter() - started
    status = Path("/proc/self/status").read_text().splitlines()
    print(took, int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) * 1024)
archive, url, config = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
"""
BARE = """
import s3fs
files = s3fs.S3FileSystem(use_listings_cache=False)
place = url.removeprefix("s3://") + "/bare"
"""
OURS = """
from opslib.core.config import load_config
from opslib.core.store import open_store
from opslib.ops.release.push import push_release
from opslib.ops.release.remote import find_remote
from opslib.ops.release.verify import verify_release
config, store = load_config(config), open_store(url)
"""
READ = """
while file.read(1 << 20):
    pass
end(started)
"""
ARMS = {
    "put": BARE + "started = time.perf_counter(); files.put(str(archive), place); end(started)",
    "push": OURS + "started = time.perf_counter()\n"
    "done = push_release(archive, store, config=config); end(started)\n"
    "assert 'own digest' in done.checked",
    "read": BARE + "started = time.perf_counter(); file = files.open(place, 'rb')" + READ,
    "stream": OURS + "started = time.perf_counter(); file = store.open(archive.name)" + READ,
    "verify": OURS + "started = time.perf_counter()\n"
    "verify_release(find_remote(url + '/latest'), config=config, load_models=False); end(started)",
}


@dataclass(frozen=True)
class Place:
    """What every process is given, and the store."""

    archive: Path
    url: str
    config_path: Path
    server: S3


def run_arm(name: str, place: Place) -> tuple[float, int]:
    """Run one side in a process of its own; return its seconds and the most memory it had."""
    os.sync()
    answer = subprocess.run(
        [
            *(sys.executable, "-c", BEGIN + ARMS[name]),
            *(str(place.archive), place.url, str(place.config_path)),
        ],
        env=os.environ | place.server.environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise RuntimeError(f"{name}: {answer.stderr.strip().splitlines()[-1]}")
    seconds, peak = answer.stdout.split()
    return float(seconds), int(peak)


def empty(place: Place) -> None:
    """Delete what the round before put there."""
    bucket = place.url.split("/")[2]
    for name in place.server.objects(bucket):
        place.server.client().delete_object(Bucket=bucket, Key=name)


def measure(place: Place, rounds: int) -> list[Row]:
    """Take turns and return the table's rows."""
    taken: dict[str, list[float]] = {name: [] for name in ARMS}
    peaks = dict.fromkeys(ARMS, 0)
    for number in range(rounds):
        empty(place)
        for pair in (("put", "push"), ("read", "stream", "verify")):
            for name in pair if number % 2 == 0 else pair[::-1]:
                seconds, peak = run_arm(name, place)
                taken[name].append(seconds)
                peaks[name] = max(peaks[name], peak)
    size = place.archive.stat().st_size
    rows = [
        compare("pushed, as a share of s3fs.put", "push", "put", taken, size, MIN_SHARE),
        compare("verified, as a share of a read by s3fs", "verify", "read", taken, size, MIN_SHARE),
        compare("verified, as a share of our own read", "verify", "stream", taken, size, None),
    ]
    for name, what in (("push", "pushing"), ("verify", "verifying")):
        held = peaks[name] <= MAX_BYTES
        shown = format_bytes(peaks[name])
        rows.append(Row(f"peak memory of {what}", shown, format_bytes(MAX_BYTES), held))
    shown = f"{format_bytes(peaks['put'])}, {format_bytes(peaks['read'])}"
    return [*rows, Row("peak memory of s3fs.put, of its read", shown, "reported", True)]


def compare(
    what: str,
    ours: str,
    other: str,
    taken: dict[str, list[float]],
    size: int,
    bound: float | None,
) -> Row:
    """Return how fast ours is as a share of the other, over the rounds."""
    logs = [math.log(b / a) for a, b in zip(taken[ours], taken[other], strict=True)]
    interval = trimmed_interval(logs)
    share = math.exp(trimmed_mean(logs))
    ends = f"{math.exp(interval.low):.2f}–{math.exp(interval.high):.2f}"
    rates = [size / min(taken[name]) / 1e6 for name in (ours, other)]
    value = f"{share:.2f} ({ends}); at best {rates[0]:.0f} and {rates[1]:.0f} MB/s"
    if bound is None:
        return Row(what, value, "reported", True)
    return Row(what, value, f">= {bound:g}", share >= bound)


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=None, help="where the 500 MB lie")
    arguments = parser.parse_args()
    if arguments.rounds < 5:
        parser.error("--rounds: an interval needs 5")
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-store-") as name:
        home = Path(name)
        config_path = home / "config.yaml"
        config_path.write_text("paths:\n  exp_dir: exp\n  data_root: images\n")
        write_model(home / "exp/export/model-20260101-000000-nogit.onnx")
        config = load_config(config_path, {})
        request = ReleaseRequest(allow_missing_metrics=True, verify=False)
        archive = build_release(config, request).path
        with start_s3(home) as server:
            url = f"s3://{server.make_bucket()}/releases"
            rows = measure(Place(archive, url, config_path, server), arguments.rounds)
    return show_rows(f"a release of 500 MB and a store, {arguments.rounds} rounds", rows)


if __name__ == "__main__":
    sys.exit(main())
