"""Does racing find what trying everything finds, in a third of the time? Run with `make perf`.

On the demo model and on an EfficientNetV2-S with random weights: every combination of this host's
CPU grid is measured once, each in a process of its own, in as many interleaved rounds as finalists
get; then the sweep runs ten times. Where its recommendation is not the exhaustive best, the two are
measured against each other again.

Exit code 3: a recommendation lies more than 2 % behind (and the interval excludes none), or a
sweep took more than a third of the exhaustive time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from efficientnet import IMG_SIZE, export_network
from rich.console import Console
from rich.table import Table

from opslib.core.config import Config, load_config
from opslib.inference.engine import EngineRequest
from opslib.inference.find_model import find_onnx
from opslib.inference.images import pick_images
from opslib.ops.sweep.arms import make_request
from opslib.ops.sweep.finals import Finals, measure_finalists
from opslib.ops.sweep.record import SweepOptions
from opslib.ops.sweep.request import SweepRequest
from opslib.ops.sweep.run import run_sweep
from opslib.ops.sweep.space import cpu_axes, find_sweep_host
from opslib.timing.rounds import Deadline
from opslib.timing.station import Station, Workload
from opslib.timing.stats import bootstrap_interval, trimmed_mean

RACES = 10
MAX_REGRET_PCT = 2.0
MAX_TIME_SHARE = 1 / 3
ROUNDS = 20
REMEASURED_ROUNDS = 20

console = Console()


@dataclass(frozen=True)
class Subject:
    """A model at one batch size."""

    name: str
    path: Path
    batch_size: int
    budget_s: float


@dataclass(frozen=True)
class Answer:
    """What one sweep chose, how long it took, and how far behind the exhaustive best it lies."""

    label: str
    wall_s: float
    regret_pct: float
    interval_pct: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Whether it is within the bound, or cannot be told from the best."""
        low, high = self.interval_pct
        return self.regret_pct <= MAX_REGRET_PCT or low <= 0 <= high


def list_grid(config: Config, subject: Subject) -> tuple[list[SweepOptions], int]:
    """Return every combination of the CPU grid, and the model's image size in pixels."""
    request = EngineRequest("onnx", subject.path)
    with Station("host") as station:
        host = station.call(find_sweep_host)
        size = station.describe(request).input_shape[-1] or IMG_SIZE
    return list(cpu_axes(config.sweep, host)), size


def measure(options: list[SweepOptions], subject: Subject, work: Workload, rounds: int) -> Finals:
    """Measure each combination in a process of its own."""
    base = EngineRequest("onnx", subject.path)
    return measure_finalists(
        [make_request(base, one, subject.batch_size) for one in options],
        work,
        deadline=Deadline(None),
        rng=np.random.default_rng(0),
        margin_pct=MAX_REGRET_PCT,
        rounds=rounds,
    )


def find_best(finals: Finals) -> int:
    """Return the fastest by the trimmed mean of its log times."""
    logs = np.log(np.asarray(finals.medians_ms))
    return int(np.argmin([trimmed_mean(list(column)) for column in logs.T]))


def measure_regret(
    best: SweepOptions, chosen: SweepOptions, subject: Subject, work: Workload
) -> tuple[float, tuple[float, float]]:
    """Return how much slower the choice is than the best (percent), with its 95 % interval."""
    finals = measure([best, chosen], subject, work, REMEASURED_ROUNDS)
    logs = [math.log(row[1] / row[0]) for row in finals.medians_ms]
    interval = bootstrap_interval(logs)
    ends = (100 * math.expm1(interval.low), 100 * math.expm1(interval.high))
    return 100 * math.expm1(trimmed_mean(logs)), ends


def judge_subject(config: Config, subject: Subject, races: int) -> bool:
    """Measure everything once, race ten times, print both and return whether the bounds hold."""
    names = pick_images(config, "val", None, limit=16).take(max(16, subject.batch_size))
    grid, img_size = list_grid(config, subject)
    work = Workload(tuple(names), img_size, config.preprocess.function)
    started = time.monotonic()
    finals = measure(grid, subject, work, ROUNDS)
    exhaustive_s = time.monotonic() - started
    best = grid[find_best(finals)]
    known: dict[str, tuple[float, tuple[float, float]]] = {best.label: (0.0, (0.0, 0.0))}
    answers = []
    for _ in range(races):
        request = SweepRequest(
            model=subject.path, batch=(subject.batch_size,), budget_s=subject.budget_s, fresh=True
        )
        started = time.monotonic()
        record = run_sweep(config, request)
        wall_s = time.monotonic() - started
        if record.recommended is None:
            raise SystemExit(record.finding)
        chosen = record.recommended.options
        if chosen.label not in known:
            known[chosen.label] = measure_regret(best, chosen, subject, work)
        answers.append(Answer(chosen.label, wall_s, *known[chosen.label]))
    return show(subject, len(grid), best.label, exhaustive_s, answers)


def show(
    subject: Subject, size: int, best: str, exhaustive_s: float, answers: list[Answer]
) -> bool:
    """Print the table of one subject and return whether both bounds hold."""
    table = Table(title=f"{subject.name}, batch {subject.batch_size}: {size} combinations")
    for name in ("sweep", "recommended", "behind the best", "95 % interval", "seconds", "share"):
        table.add_column(name, justify="right")
    for number, one in enumerate(answers, start=1):
        table.add_row(
            str(number),
            one.label,
            f"{one.regret_pct:+.2f} %",
            f"{one.interval_pct[0]:+.2f} to {one.interval_pct[1]:+.2f} %",
            f"{one.wall_s:.1f}",
            f"{one.wall_s / exhaustive_s:.2f}",
        )
    console.print(table)
    kept = sum(one.holds for one in answers)
    worst = max(one.wall_s for one in answers) / exhaustive_s
    middle_s = statistics.median(one.wall_s for one in answers)
    console.print(
        f"exhaustive: {best} is fastest, {exhaustive_s:.1f} s; sweep: {middle_s:.1f} s "
        f"({middle_s / exhaustive_s:.2f} of it, at most {worst:.2f}; bound {MAX_TIME_SHARE:.2f}); "
        f"regret at most {max(one.regret_pct for one in answers):.2f} % "
        f"(bound {MAX_REGRET_PCT:g} %), kept {kept} of {len(answers)}"
    )
    return kept == len(answers) and worst <= MAX_TIME_SHARE


def main() -> int:
    """Judge both subjects and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--races", type=int, default=RACES)
    arguments = parser.parse_args()
    shipped = load_config()
    with tempfile.TemporaryDirectory(prefix="pillops-sweep-") as folder:
        paths = shipped.paths.model_copy(
            update={"exp_dir": Path(folder), "data_root": shipped.data_root}
        )
        large = Path(folder) / "efficientnet_v2_s.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            millions = export_network(large)
        console.print(f"EfficientNetV2-S with random weights: {millions:.1f} million parameters")
        demo = find_onnx(shipped).resolve()
        held = True
        for subject in (
            Subject("demo model", demo, 8, 60.0),
            Subject("EfficientNetV2-S", large, 1, 60.0),
        ):
            config = shipped.model_copy(update={"paths": paths})
            held &= judge_subject(config, subject, arguments.races)
    return 0 if held else 3


if __name__ == "__main__":
    sys.exit(main())
