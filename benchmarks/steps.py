"""How well the steps of a series are found, beside Apache Otava's defaults on the same series.

The series are those of `otava-test-data`: each kind of 50 and of 500 points, with 90 seeds, its
steps of 3, 4 and 6 times the noise. A step counts as found within three points of where it is.
Precision is the share of the places found that are steps; where a kind has no steps, the share of
its series in which nothing is found. The delay is how many points after a step it is first found.

Otava pins an older numpy and scipy than ours. It lives in an environment of its own below the one
that runs this, made from `requirements-otava.txt` and kept until that file changes.

    python benchmarks/steps.py [--seeds 90]

Exit code 3 where a bound is missed: 95 % of the steps, one false step in any 500 points of pure
noise, and no kind of series in which ours is worse than Otava by more than two percentage points.
With fewer seeds a single series is more than a bound allows a kind: 30 cannot tell a weakness from
one unlucky series.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import WIDTH, Row, show_rows
from otava_peer import LONGEST, NEAR, SIZES, points_until_found
from peer_environment import find_python
from rich.console import Console
from rich.table import Table

from opslib.timing.steps import find_steps

HERE = Path(__file__).resolve().parent
LOCK = HERE / "requirements-otava.txt"
MIN_RECALL_PCT = 95.0
MAX_FALSE = 1  # in a series of pure noise of NOISE_POINTS
NOISE_POINTS = 500
MAX_WORSE = 2.0  # percentage points

console = Console(width=None if sys.stdout.isatty() else WIDTH)


@dataclass
class Score:
    """What one search found in the series of one kind and length."""

    steps: int = 0
    hits: int = 0
    false: int = 0
    series: int = 0
    quiet: int = 0
    most_false: int = 0

    def add(self, steps: Sequence[int], found: Sequence[int]) -> None:
        """Count one series: each place found stands for one step at most."""
        left = list(found)
        for step in steps:
            near = [at for at in left if abs(at - step) <= NEAR]
            if near:
                left.remove(near[0])
                self.hits += 1
        self.steps += len(steps)
        self.false += len(left)
        self.series += 1
        self.quiet += not left
        self.most_false = max(self.most_false, len(left))

    @property
    def recall_pct(self) -> float | None:
        """Percent of the steps that were found."""
        return 100 * self.hits / self.steps if self.steps else None

    @property
    def precision_pct(self) -> float:
        """Percent of what was found that is a step, or of the series without one left alone."""
        if not self.steps:
            return 100 * self.quiet / self.series
        return 100 * self.hits / max(1, self.hits + self.false)

    def behind(self, other: Score) -> float:
        """Percentage points by which recall or precision is worse than another's."""
        recall = (other.recall_pct or 0) - (self.recall_pct or 0)
        return max(recall, other.precision_pct - self.precision_pct)


Scores = dict[tuple[str, int], Score]


def score(series: Sequence[dict[str, Any]], found: Sequence[Sequence[int]]) -> Scores:
    """Scores for each kind and length of series."""
    scores: Scores = defaultdict(Score)
    for one, places in zip(series, found, strict=True):
        scores[one["kind"], len(one["values"])].add(one["steps"], places)
    return scores


def show_kinds(name: str, ours: Scores, theirs: Scores) -> None:
    """Print recall, precision and false steps of both, a kind of series a row."""
    table = Table(title=f"steps found, ours and {name}")
    table.add_column("series")
    for heading in ("points", "steps", "recall, %", "Otava", "precision, %", "Otava"):
        table.add_column(heading, justify="right")
    for heading in ("false steps", "Otava"):
        table.add_column(heading, justify="right")
    table.add_column("ours is")
    for (kind, points), mine in ours.items():
        other = theirs[kind, points]
        pairs = ((mine.recall_pct, other.recall_pct), (mine.precision_pct, other.precision_pct))
        shares = ["" if value is None else f"{value:.1f}" for pair in pairs for value in pair]
        behind = mine.behind(other)
        word = f"worse by {behind:.1f}" if behind > 0 else "no worse"
        counts = (str(mine.false), str(other.false))
        table.add_row(kind, str(points), str(mine.steps), *shares, *counts, word)
    console.print(table)


def bound_rows(name: str, ours: Scores, theirs: Scores) -> list[Row]:
    """The figures over all kinds of series, and their bounds."""
    rows = []
    for who, scores in (("ours", ours), (name, theirs)):
        mine = scores is ours
        steps, hits, false = (
            sum(getattr(one, key) for one in scores.values()) for key in ("steps", "hits", "false")
        )
        recall_pct = 100 * hits / steps
        noises = [scores[f"{kind} noise", NOISE_POINTS] for kind in ("normal", "uniform")]
        most = max(one.most_false for one in noises)
        counted = f"{sum(one.false for one in noises)} in {sum(one.series for one in noises)}"
        recall = f"{hits:,} of {steps:,}, {recall_pct:.1f} %"
        bounds = (f"≥ {MIN_RECALL_PCT:g} %", f"≤ {MAX_FALSE}") if mine else ("reported", "reported")
        rows += [
            Row(
                f"{who}: steps of 3 × the noise or more found",
                recall,
                bounds[0],
                not mine or recall_pct >= MIN_RECALL_PCT,
            ),
            Row(
                f"{who}: false steps in {NOISE_POINTS} points of pure noise, the worst",
                f"{most} ({counted} series)",
                bounds[1],
                not mine or most <= MAX_FALSE,
            ),
            Row(
                f"{who}: precision where there are steps",
                f"{100 * hits / (hits + sum(s.false for s in scores.values() if s.steps)):.1f} %",
                "reported",
                True,
            ),
            Row(f"{who}: false steps in all series", f"{false:,}", "reported", True),
        ]
    for key, one in ours.items():
        behind = one.behind(theirs[key])
        if behind > 0:
            what = f"{key[0]}, {key[1]} points: ours is worse by, percentage points"
            rows.append(Row(what, f"{behind:.1f}", f"≤ {MAX_WORSE:g}", behind <= MAX_WORSE))
    if all(one.behind(theirs[key]) <= 0 for key, one in ours.items()):
        rows.append(Row("kinds of series in which ours is worse", "none", "none", True))
    return rows


def delay_rows(name: str, waits: Sequence[dict[str, Any]]) -> list[Row]:
    """How long both take to find a step, by its size."""
    rows = []
    for size in SIZES:
        series = [one for one in waits if one["size"] == size]
        mine = [points_until_found(find_steps, one["values"]) for one in series]
        for who, points in (("ours", mine), (name, [one["points"] for one in series])):
            never = sum(one > LONGEST for one in points)
            value = f"{statistics.mean(points):.2f}, at most {max(points)}"
            value += f", {never} not within {LONGEST}" if never else ""
            rows.append(Row(f"{who}: delay at {size} × the noise, points", value, "reported", True))
    return rows


def main() -> int:
    """Search the same series by both, print the figures and their bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=90)
    arguments = parser.parse_args()
    python = find_python(LOCK, "some 400 MB")
    if python is None:
        print("steps: skipped")
        return 0
    command = [python, HERE / "otava_peer.py", "--seeds", str(arguments.seeds)]
    peer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    name, series = peer["name"], peer["series"]
    started = time.perf_counter()
    found = [find_steps(one["values"]) for one in series]
    took_s = time.perf_counter() - started
    ours, theirs = score(series, found), score(series, [one["found"] for one in series])
    show_kinds(name, ours, theirs)
    rows = bound_rows(name, ours, theirs) + delay_rows(name, peer["waits"])
    seconds = f"{took_s:.1f} ({took_s / peer['took_s']:.2f} × Otava's)"
    rows.append(Row("ours: seconds for all series", seconds, "reported", True))
    return show_rows(f"steps, {arguments.seeds} seeds", rows)


if __name__ == "__main__":
    sys.exit(main())
