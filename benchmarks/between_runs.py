"""Does a benchmark say the same tomorrow, and does it find what did change?

Runs of the demo's benchmark, every second one beside a neighbour that takes a quarter of a core,
each in processes of its own and kept in a file of its own: an interrupted series goes on where it
stopped, over as many days as it likes. Then every run is held against all the others, as it is and
with a slowdown planted in its figures: in the model's alone, and in the reference's as well.

    python benchmarks/between_runs.py [--runs 40] [--every 180] [--folder demo/between_runs]
    python benchmarks/between_runs.py --short

Exit code 3 when a bound is missed. The short form makes six short runs and holds no bound but that
nothing is raised; it tells whether the machinery works, not how sure it is.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from opslib.ops.bench.compare import RecordComparison, compare_records
from opslib.ops.bench.history import judge_record
from opslib.ops.bench.record import BenchRecord, BenchRow

ROOT = Path(__file__).resolve().parents[1]
PILLOPS = str(Path(sys.executable).with_name("pillops"))
NEIGHBOUR = """
import time
while True:
    until = time.perf_counter() + 0.025
    while time.perf_counter() < until:
        pass
    time.sleep(0.075)
"""
KINDS = ("quiet", "beside a neighbour")
SHORT_RUNS = 6
SHORT = ["--batch", "1,8", "--budget-s", "20"]


@contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """Keep a quarter of a core busy, where that is wanted."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def collect(folder: Path, runs: int, every_s: float, options: Sequence[str]) -> list[Path]:
    """Make the runs that are not there yet and return all; even numbers are quiet ones."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"run_{number:03d}.json" for number in range(runs)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        began = time.monotonic()
        command = [PILLOPS, "bench", "--json", str(path), *options]
        with neighbour(number % 2 == 1):
            answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not path.exists():
            raise SystemExit(f"run {number} left no record: {answer.stderr[-500:]}")
        print(f"run {number + 1} of {runs}, {KINDS[number % 2]}: exit {answer.returncode}")
        if not all(one.exists() for one in paths):
            time.sleep(max(0.0, every_s - (time.monotonic() - began)))
    return paths


def plant(record: BenchRecord, share: float, *, reference: bool) -> BenchRecord:
    """Return the record as if the served model took that much longer, and the reference networks
    of both engines too if `reference`. An end-to-end call grows by its inference alone."""

    def slow(row: BenchRow) -> BenchRow:
        found = row.relative
        if found is None or not (reference or row.engine == "onnx"):
            return row
        if reference:
            found = found.model_copy(update={"reference_ms": found.reference_ms * (1 + share)})
            return row.model_copy(update={"relative": found})
        stages = row.stages_ms
        part = stages.inference / (stages.preprocess + stages.inference) if stages else 1.0
        factor = 1 + share * part
        grown = {
            "ratio": found.ratio * factor,
            "ci95": tuple(end * factor for end in found.ci95),
            "log_ratios": tuple(one + math.log(factor) for one in found.log_ratios),
        }
        return row.model_copy(update={"relative": found.model_copy(update=grown)})

    return record.model_copy(update={"rows": tuple(map(slow, record.rows))})


def as_before(record: BenchRecord) -> BenchRecord:
    """Return the record as it was judged without a reference: by its milliseconds alone."""

    def strip(row: BenchRow) -> BenchRow:
        narrow = (row.half_width_pct or math.inf) <= record.target_half_width_pct
        status = "measured" if narrow else "inconclusive"
        return row.model_copy(update={"relative": None, "status": status})

    rows = tuple(map(strip, record.rows))
    return record.model_copy(update={"rows": rows, "reference_sha256": None})


def hold_each(
    records: Sequence[BenchRecord], tested: Sequence[BenchRecord]
) -> list[RecordComparison]:
    """Return each tested record against all records but the one in its own place."""
    return [judge_record(one, [*records[:at], *records[at + 1 :]]) for at, one in enumerate(tested)]


def raised(comparison: RecordComparison) -> bool:
    """Whether anything is called better or worse."""
    return comparison.count("better") + comparison.count("worse") > 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--every", type=float, default=180, help="seconds from one to the next")
    parser.add_argument("--folder", type=Path, default=ROOT / "demo/between_runs")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--evaluate", action="store_true", help="make no further run")
    asked = parser.parse_args()
    if asked.evaluate:
        paths = sorted(asked.folder.glob("*.json"))
    elif asked.short:
        paths = collect(asked.folder.with_name("between_runs_short"), SHORT_RUNS, 0, SHORT)
    else:
        paths = collect(asked.folder, asked.runs, asked.every, ())
    return evaluate([BenchRecord.read(path) for path in paths], held=not asked.short)


def evaluate(records: Sequence[BenchRecord], *, held: bool) -> int:
    """Print what the runs say, and return the exit code."""
    count = len(records)
    plain = hold_each(records, records)
    rows = sum(len(one.rows) for one in plain)
    none = sum(one.count("not comparable") for one in plain)
    small, large = (
        sum(
            one.count("worse") > 0
            for one in hold_each(records, [plant(r, by, reference=False) for r in records])
        )
        for by in (0.05, 0.10)
    )
    both = hold_each(records, [plant(one, 0.05, reference=True) for one in records])
    named = sum(
        "the host" in str(one.attribution) or "the runtime" in str(one.attribution)
        for one in both
        if "the model itself" not in str(one.attribution)
    )
    conclusive = Counter(at % 2 for at, one in enumerate(records) if one.verdict == "pass")
    made = Counter(at % 2 for at in range(count))
    bounds = [
        (
            "nothing changed: runs that raise anything",
            sum(map(raised, plain)),
            count,
            "<=",
            count // 40,
        ),
        ("nothing changed: rows not comparable", none, rows, "<=", rows // 20),
        ("5 % slower model: found", small, count, ">=", math.ceil(0.9 * count)),
        ("10 % slower model: found", large, count, ">=", count),
        (
            "5 % in model and reference: put down to host or runtime",
            named,
            count,
            ">=",
            math.ceil(0.95 * count),
        ),
        ("conclusive within the budget, quiet", conclusive[0], made[0], ">=", made[0]),
        (
            "conclusive within the budget, beside a neighbour",
            conclusive[1],
            made[1],
            ">=",
            math.ceil(0.9 * made[1]),
        ),
    ]
    table = Table("what", "found", "of", "wanted", "held", title=f"{count} runs, {_span(records)}")
    missed = False
    for what, found, of, sign, bound in bounds:
        good = found <= bound if sign == "<=" else found >= bound
        missed |= not good
        table.add_row(what, str(found), str(of), f"{sign} {bound}", "yes" if good else "NO")
    console = Console()
    console.print(table)
    old = [compare_records(*map(as_before, pair)) for pair in pairwise(records)]
    all_rows = sum(len(one.rows) for one in old)
    refused = sum(one.count("not comparable") for one in old)
    wrong = sum(one.count("better") + one.count("worse") for one in old)
    console.print(
        f"The same runs by milliseconds alone, each against the one before: {refused} of "
        f"{all_rows} rows not comparable, {wrong} of the other {all_rows - refused} called better "
        "or worse."
    )
    return 3 if missed and held else 0


def _span(records: Sequence[BenchRecord]) -> str:
    moments = sorted(one.lineage.created_at_utc for one in records)
    return f"{moments[0][:16]} to {moments[-1][:16]}".replace("T", " ")


if __name__ == "__main__":
    sys.exit(main())
