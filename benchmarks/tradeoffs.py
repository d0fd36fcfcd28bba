"""Batch, threads and input size of the demo model: what each costs and brings, as Markdown tables.

All arms of a table live in one process and take turns in random order, twenty rounds; latency is
the median over rounds with its 95 % interval. The network has no fixed size inside, so other input
sizes are the same weights behind an input of another shape; top-1 is on validation images.

    python benchmarks/tradeoffs.py
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from opslib.core.config import load_config
from opslib.core.host import host_facts
from opslib.inference.engine import EngineRequest
from opslib.inference.find_model import find_onnx
from opslib.inference.images import pick_images
from opslib.inference.providers import SessionSettings
from opslib.ops.sweep.finals import Finals, run_finals
from opslib.timing.rounds import Deadline
from opslib.timing.station import Station, Workload
from opslib.timing.stats import bootstrap_interval

BATCHES = (1, 2, 4, 8, 16, 32)
THREADS = (1, 0)
SIZES = (48, 64, 80, 112, 160)
SIZE_BATCH = 8
ROUNDS = 20
TOP1_IMAGES = 520

console = Console(width=110, highlight=False)


def measure(requests: Sequence[EngineRequest], works: Sequence[Workload]) -> Finals:
    """Measure all arms in interleaved rounds."""
    with Station("trade-offs") as station:
        for number, (request, work) in enumerate(zip(requests, works, strict=True)):
            station.load(request, work, number)
        return run_finals(
            [station.racer(number) for number in range(len(requests))],
            deadline=Deadline(None),
            rng=np.random.default_rng(0),
            margin_pct=2.0,
            rounds=ROUNDS,
        )


def describe(finals: Finals, index: int, batch_size: int) -> str:
    """Return `p50 ms (± %) | img/s` of one arm."""
    times_ms = finals.times_ms(index)
    p50_ms = float(np.median(times_ms))
    half = bootstrap_interval([math.log(one) for one in times_ms]).half_width
    return f"{p50_ms:.2f} (±{100 * math.expm1(half):.1f} %) | {1000 * batch_size / p50_ms:,.0f}"


def show_batches(model: Path, work: Workload) -> None:
    """Print latency and throughput for each batch size, on one thread and on all."""
    arms = [(batch, threads) for batch in BATCHES for threads in THREADS]
    requests = [
        EngineRequest(
            "onnx",
            model,
            batch_size=batch,
            settings=SessionSettings(intra_op_num_threads=threads),
        )
        for batch, threads in arms
    ]
    finals = measure(requests, [work] * len(requests))
    console.print("| Batch | 1 thread: p50 ms | img/s | all threads: p50 ms | img/s | speed-up |")
    console.print("|--:|--:|--:|--:|--:|--:|")
    for row, batch in enumerate(BATCHES):
        one, every = 2 * row, 2 * row + 1
        gain = np.median(finals.times_ms(one)) / np.median(finals.times_ms(every))
        console.print(
            f"| {batch} | {describe(finals, one, batch)} | {describe(finals, every, batch)} "
            f"| {gain:.2f} × |",
            soft_wrap=True,
        )


def resize_model(model: Path, size: int, folder: Path) -> Path:
    """Write the same network with an input of another size; return its path."""
    import onnx

    loaded = onnx.load(model)
    for axis in loaded.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_value = size
    del loaded.graph.value_info[:]
    path = folder / f"size-{size}.onnx"
    onnx.save_model(loaded, path)
    return path


def measure_top1(model: Path, work: Workload, classes: Sequence[str]) -> float:
    """Return top-1 in percent; an image's class is the name of its folder."""
    with Station("accuracy") as station:
        station.load(EngineRequest("onnx", model, batch_size=SIZE_BATCH), work)
        answers = station.answer(len(work.names)).argmax(-1)
    truth = [classes.index(Path(name).parent.name) for name in work.names]
    return 100 * float(np.mean(answers == np.array(truth)))


def show_sizes(model: Path, names: Sequence[str], preprocess: str, data_root: Path) -> None:
    """Print latency, throughput and accuracy for each input size."""
    classes = sorted(path.name for path in (data_root / "val").iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory(prefix="pillops-sizes-") as name:
        models = [resize_model(model, size, Path(name)) for size in SIZES]
        requests = [EngineRequest("onnx", path, batch_size=SIZE_BATCH) for path in models]
        works = [Workload(tuple(names[:16]), size, preprocess) for size in SIZES]
        finals = measure(requests, works)
        console.print(f"\n| Input, batch {SIZE_BATCH} | p50 ms | img/s | pixels | top-1 |")
        console.print("|--:|--:|--:|--:|--:|")
        for index, size in enumerate(SIZES):
            whole = Workload(tuple(names), size, preprocess)
            top1_pct = measure_top1(models[index], whole, classes)
            console.print(
                f"| {size} px | {describe(finals, index, SIZE_BATCH)} "
                f"| {size**2 / SIZES[2] ** 2:.2f} × | {top1_pct:.1f} % |",
                soft_wrap=True,
            )


def main() -> int:
    """Print both tables."""
    config = load_config()
    model = find_onnx(config).resolve()
    names = pick_images(config, "val", None, limit=TOP1_IMAGES).take(TOP1_IMAGES)
    size = config.preprocess.img_size or SIZES[2]
    console.print(f"{model.name} on {host_facts().label}\n")
    show_batches(model, Workload(tuple(names[:32]), size, config.preprocess.function))
    show_sizes(model, names, config.preprocess.function, config.data_root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
