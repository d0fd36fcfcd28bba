"""Does the sweep as served choose what trying everything chooses, in a third of the time?

On the demo model: every combination is measured in a service of its own, in interleaved rounds
until nobody is undecided, at most sixty; then the sweep runs, each time anew. A choice that the
whole grid neither ties with its best nor separates from it is measured against the best once more.

    python benchmarks/served.py [--runs 10] [--budget 140]
    python benchmarks/served.py --short      one run, and the grid for a limited time

Exit code 3: a choice lies behind the best, no choice was made, or a sweep took more than a third of
the grid's time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from figures import Row, show_rows
from rich.console import Console
from rich.table import Table

from opslib.core.config import Config, load_config
from opslib.core.host import host_facts
from opslib.inference.find_model import find_onnx
from opslib.ops.served_sweep.grid import ServedArm
from opslib.ops.served_sweep.record import ServedSweepRecord
from opslib.ops.served_sweep.request import ServedSweepRequest
from opslib.ops.served_sweep.run import open_sweep, run_served_sweep
from opslib.ops.served_sweep.setup import prepare_served
from opslib.ops.sweep.finals import Finals, rank, speedup_interval
from opslib.timing.lock import hold_timing_lock
from opslib.timing.rounds import Deadline
from opslib.timing.station import RacerError

RUNS = 10
BUDGET_S, SHORT_BUDGET_S = 140.0, 60.0
MAX_TIME_SHARE = 1 / 3
SHORT_GRID = 3.2  # times the budget

console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)


@dataclass(frozen=True)
class Grid:
    """All combinations measured: who, how, how long it took, and the margin of a tie."""

    arms: list[ServedArm]
    finals: Finals
    wall_s: float
    margin_pct: float

    def labels(self, indices: tuple[int, ...]) -> list[str]:
        """Return what arms are called."""
        return [self.arms[index].label for index in indices]


def measure(config: Config, wanted: set[str] | None, limit_s: float | None) -> Grid:
    """Measure every combination, or those of these labels, until nobody is undecided."""
    setup = prepare_served(config, ServedSweepRequest())
    with hold_timing_lock("the grid as served"), open_sweep(config, setup, fresh=True) as sweep:
        arms = [arm for arm in sweep.arms if wanted is None or arm.label in wanted]
        started = time.monotonic()
        while True:
            try:
                finals = sweep.track.measure_finalists(arms, Deadline(limit_s))
            except RacerError as error:
                console.print(f"{arms[error.number].label}: left out: {error}")
                del arms[error.number]
            else:
                return Grid(arms, finals, time.monotonic() - started, sweep.track.margin_pct)


def judge_choice(config: Config, grid: Grid, chosen: str) -> bool:
    """Whether a choice is tied with the best of the grid, asked again where the grid leaves it
    open."""
    ranking = rank(grid.finals.medians_ms, grid.margin_pct)
    if chosen in grid.labels(ranking.tied):
        return True
    if chosen not in grid.labels(ranking.unclear):
        return False
    again = measure(config, {chosen, grid.arms[ranking.best].label}, None)
    standing = rank(again.finals.medians_ms, again.margin_pct)
    return chosen in again.labels((*standing.tied, *standing.unclear))


def show_grid(grid: Grid) -> None:
    """Print every combination's rate and its ratio to the default's."""
    table = Table(title=f"{len(grid.arms)} services, {len(grid.finals.medians_ms)} rounds")
    for name in ("settings", "requests/s", "x default", "95 % interval", "is"):
        table.add_column(name)
    ranking = rank(grid.finals.medians_ms, grid.margin_pct)
    words = dict.fromkeys(ranking.unclear, "undecided") | dict.fromkeys(ranking.tied, "tied")
    words[ranking.best] = "best"
    default_ms = grid.finals.times_ms(0)
    for index, arm in enumerate(grid.arms):
        times_ms = grid.finals.times_ms(index)
        speedup, ends = speedup_interval(default_ms, times_ms)
        interval = f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "-"
        rate = f"{1000 / statistics.median(times_ms):,.0f}"
        table.add_row(arm.label, rate, f"{speedup:.2f}", interval, words.get(index, "behind"))
    console.print(table)


def show_run(number: int, record: ServedSweepRecord) -> None:
    """Print what a sweep chose, its tie set and its gain."""
    chosen = record.recommended
    if chosen is None:
        console.print(f"sweep {number}: {record.verdict}: {record.finding}")
        return
    low, high = chosen.gain_ci95
    tied = " | ".join(record.row(row).options.label for row in chosen.tie_set)
    console.print(
        f"sweep {number}: {record.verdict}: {chosen.options.label}, {chosen.gain:.2f} x the "
        f"default (95 % interval {low:.2f} to {high:.2f}); tie set: {tied}; {record.wall_s:.1f} s"
    )


def main() -> int:
    """Measure the grid, sweep, and print whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--budget", type=float, help="seconds for one sweep")
    parser.add_argument("--short", action="store_true", help="one run, the grid cut short")
    arguments = parser.parse_args()
    budget_s = arguments.budget or (SHORT_BUDGET_S if arguments.short else BUDGET_S)
    shipped = load_config()
    model = find_onnx(shipped).resolve()
    console.print(f"{model.name} as served, {host_facts().label}")
    runs = 1 if arguments.short else arguments.runs
    with tempfile.TemporaryDirectory(prefix="pillops-served-bench-") as folder:
        places = {"exp_dir": Path(folder), "data_root": shipped.data_root}
        paths = shipped.paths.model_copy(update=places)
        export = shipped.export.model_copy(update={"out_dir": shipped.export_dir})
        config = shipped.model_copy(update={"paths": paths, "export": export})
        limit_s = SHORT_GRID * budget_s if arguments.short else None
        grid = measure(config, None, limit_s)
        show_grid(grid)
        records = []
        for number in range(1, runs + 1):
            request = ServedSweepRequest(budget_s=budget_s, fresh=True)
            records.append(run_served_sweep(config, request))
            show_run(number, records[-1])
        chosen = [one.recommended.options.label for one in records if one.recommended]
        held = {label: judge_choice(config, grid, label) for label in set(chosen)}
    kept = sum(held[label] for label in chosen)
    shares = [one.wall_s / grid.wall_s for one in records]
    decided = sum(one.verdict == "pass" for one in records)
    return show_rows(
        "the sweep as served against the whole grid",
        [
            Row("choices tied with the best", f"{kept} of {runs}", f"{runs}", kept == runs),
            Row(
                "time of a sweep, of the grid's",
                f"{statistics.median(shares):.2f}, at most {max(shares):.2f}",
                f"{MAX_TIME_SHARE:.2f}",
                max(shares) <= MAX_TIME_SHARE,
            ),
            Row("sweeps that decided", f"{decided} of {runs}", "none", None),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
