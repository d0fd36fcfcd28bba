"""How fast a release is made and verified: beside `tar czf`, `tar xzf` and `sha256sum`, on 500 MB.

The model is a real one of 500 MB (random float32 weights, which compress as little as trained ones
do). Both sides are processes, timed from start to end, with the files in memory at the start and
everything on disk at the end (fsync). They take turns, so that a slower minute of the host touches
both; the figure is the ratio of the medians. A signed release is held against an unsigned one in
the same way, each first in every other round. A disk's moods are larger than what a signature
costs, so that its steps are timed by themselves too, in the same rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from figures import Row, show_rows

from opslib.core.config import Config, load_config
from opslib.core.formatting import format_bytes
from opslib.ops.release import signature
from opslib.ops.release.companions import manifest_path
from opslib.ops.release.manifest import parse_manifest
from opslib.ops.release.sources import ArchiveFile

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 11_200  # two layers of WIDTH x WIDTH / 2 float32: 500 MB
MIB = 1 << 20
PROBE = """
import sys
from pathlib import Path
from opslib.core.config import load_config
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.verify import verify_release
checked = sys.argv[2] == "checked"
config = load_config(sys.argv[1])
request = ReleaseRequest(allow_missing_metrics=True, verify=checked, load_models=checked)
record = build_release(config, request)
if checked:
    verify_release(record.path, config=config, load_models=False)
status = Path("/proc/self/status").read_text().splitlines()
print(int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) * 1024)
print(record.path)
"""


def write_model(path: Path) -> Path:
    """Write a classifier whose weights are 500 MB of random float32, as trained ones are spread."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    half = WIDTH // 2
    shapes = {"a": (3, WIDTH), "b": (WIDTH, half), "c": (half, WIDTH), "d": (WIDTH, 26)}
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
        helper.make_node("MatMul", ["y", "c"], ["z"]),
        helper.make_node("MatMul", ["z", "d"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 80, 80])
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 26])
    graph = helper.make_graph(nodes, "big", [image], [answer], weights)
    opset = [helper.make_opsetid("", 18)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def sync(*paths: Path) -> None:
    """Have files on disk before the clock stops."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def settle(folder: Path) -> None:
    """Empty a folder and let the disk finish, so that no run pays for the one before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.sync()


def make_by_tar(place: Path, out: Path) -> Path:
    """What the shell does: tar czf, sha256sum, both on disk."""
    archive, listing = out / "release.tar.gz", out / "release.tar.gz.sha256"
    subprocess.run(["tar", "czf", archive, "-C", place / "exp", "export"], check=True)
    with listing.open("wb") as sink:
        subprocess.run(["sha256sum", archive.name], cwd=out, stdout=sink, check=True)
    sync(archive, listing, out)
    return archive


def make_by_us(config: Path, how: str) -> tuple[float, int, Path]:
    """A release by a process of its own: its seconds from start to end, peak bytes, the archive."""
    started = time.perf_counter()
    command = [sys.executable, "-c", PROBE, config, how]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    seconds = time.perf_counter() - started
    peak, path = answer.stdout.splitlines()
    return seconds, int(peak), Path(path)


def verify_by_us(archive: Path, config: Path) -> None:
    """The command, from start to end."""
    command = [sys.executable, "-m", "opslib.cli", "release", "verify", archive, "--no-load"]
    subprocess.run([*command, "--config", config], capture_output=True, check=True, cwd=ROOT)


def verify_by_tar(archive: Path, listing: Path, out: Path) -> None:
    """What the shell does: unpack, and the digest of each file."""
    subprocess.run(["tar", "xzf", archive, "-C", out], check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", listing], cwd=out, check=True)


def measure_signing(place: Path, plain: Path, releases: Path, rounds: int) -> list[Row]:
    """Make and verify releases that are signed, and must be, in turn with such as are not."""
    key, signed = place / "key", place / "signed.yaml"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", key]
    subprocess.run(command, check=True)
    allowed = place / "allowed_signers"
    allowed.write_text(f"bench {key.with_name('key.pub').read_text()}")
    lists = f"release: {{signing_key: {key}, allowed_signers: {allowed}}}\n"
    signed.write_text(plain.read_text() + lists)
    took: dict[Path, list[float]] = {plain: [], signed: []}
    added, loaded = [], load_config(signed, {})
    for number in range(rounds):
        for config in (plain, signed)[:: -1 if number % 2 else 1]:
            settle(releases)
            seconds, _, archive = make_by_us(config, "bare")
            took[config].append(seconds + timed(partial(verify_by_us, archive, config)))
            if config == signed:
                added.append(timed(partial(sign_and_judge, archive, key, loaded)))
    without, with_it = (statistics.median(took[config]) for config in (plain, signed))
    whole = f"made and verified, signed {with_it:.2f} s against {without:.2f} s, times as long"
    steps_s = statistics.median(added)
    cost = 1 + steps_s / without
    alone = f"the same, by what a signature adds: {1000 * steps_s:.0f} ms, times as long"
    return [
        Row(whole, f"{with_it / without:.3f}", "reported", True),
        Row(alone, f"{cost:.3f}", "<= 1.05", cost <= 1.05),
    ]


def sign_and_judge(archive: Path, key: Path, config: Config) -> None:
    """All that a signature adds: its key looked at, made and judged, judged when verified."""
    data = manifest_path(archive).read_bytes()
    manifest = parse_manifest(data, archive.name)
    signature.describe_key(key)
    for made in (signature.sign(data, key), ArchiveFile(archive).read_signature()):
        signature.judge(made, manifest, data, archive.name, config)


def measure(place: Path, rounds: int) -> list[Row]:
    """Take turns and return the table's rows."""
    config_path = place / "config.yaml"
    config_path.write_text("paths:\n  exp_dir: exp\n  data_root: images\n")
    model = write_model(place / "exp/export/model-20260101-000000-nogit.onnx")
    config = load_config(config_path, {})
    by_tar, by_us, check_tar, check_us = [], [], [], []
    peak, size_tar, size_us = 0, 0, 0
    out, unpacked = place / "tar", place / "unpacked"
    listing = place / "files.sha256"
    sums = subprocess.run(
        ["sha256sum", f"export/{model.name}"], cwd=place / "exp", capture_output=True, check=True
    )
    listing.write_bytes(sums.stdout)
    for _ in range(rounds):
        settle(out)
        settle(config.releases_dir)
        by_tar.append(timed(lambda: make_by_tar(place, out)))
        os.sync()
        seconds, used, archive = make_by_us(config_path, "bare")
        by_us.append(seconds)
        peak = max(peak, used)
        size_tar, size_us = (out / "release.tar.gz").stat().st_size, archive.stat().st_size
        settle(unpacked)
        check_tar.append(timed(lambda: verify_by_tar(out / "release.tar.gz", listing, unpacked)))
        settle(unpacked)
        check_us.append(timed(lambda path=archive: verify_by_us(path, config_path)))
    settle(config.releases_dir)
    whole_s, whole_peak, _ = make_by_us(config_path, "checked")
    peak = max(peak, whole_peak)
    faster = statistics.median(by_tar) / statistics.median(by_us)
    checked = statistics.median(check_tar) / statistics.median(check_us)
    made = f"{statistics.median(by_us):.2f} s against {statistics.median(by_tar):.2f} s"
    read = f"{statistics.median(check_us):.2f} s against {statistics.median(check_tar):.2f} s"
    return [
        Row(f"made and on disk, {made}, times as fast", f"{faster:.1f}", ">= 10", faster >= 10),
        Row(
            "made and verified, models loaded, verified once more",
            f"{whole_s:.2f} s",
            "reported",
            True,
        ),
        Row(
            "archive, times the size of tar's",
            f"{size_us / size_tar:.4f}",
            "<= 1.02",
            size_us <= 1.02 * size_tar,
        ),
        Row("peak memory, all checks", format_bytes(peak), "<= 200 MB", peak <= 200_000_000),
        Row(f"every byte verified, {read}, times as fast", f"{checked:.1f}", ">= 2", checked >= 2),
        *measure_signing(place, config_path, config.releases_dir, rounds),
    ]


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the 500 MB lie")
    arguments = parser.parse_args()
    parent = arguments.folder or load_config().exp_dir
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-release-") as name:
        rows = measure(Path(name), arguments.rounds)
    return show_rows(f"releases, 500 MB of weights, median of {arguments.rounds}", rows)


if __name__ == "__main__":
    sys.exit(main())
