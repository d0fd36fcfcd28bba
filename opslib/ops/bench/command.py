"""`pillops bench`, `pillops report diff` and `check`: measure, compare what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console

from opslib.core.config import Config
from opslib.core.errors import ExitCode, UnavailableError
from opslib.ops.bench.request import BenchRequest
from opslib.telling.columns import terminal_table
from opslib.telling.doors import (
    ConfigOption,
    RootOption,
    describe_experiment,
    find_root,
    make_console,
    say,
    say_inputs,
    say_verdict,
)
from opslib.telling.operation import Operation, measure, records_of, takes_request

if TYPE_CHECKING:
    from opslib.ops.bench.compare import RecordComparison
    from opslib.ops.bench.record import BenchRecord


OUTCOME_STYLES = {"better": "green", "worse": "red bold", "not comparable": "dim"}


@takes_request(BenchRequest)
def bench(request: BenchRequest, config: Config, json: Path | None) -> int:
    """Measure latency and throughput at each batch size, after a parity check."""
    from opslib.ops.bench.run import keep_bench, run_bench

    what = f"benchmark of {describe_experiment(config)}"
    record, _ = measure(what, run_bench, keep_bench, show_record, request, config, json)
    if all(row.status == "unavailable" for row in record.rows) and record.verdict != "fail":
        raise UnavailableError(record.finding)
    return int(record.exit_code)


def show_record(console: Console, record: BenchRecord) -> None:
    """Print a benchmark's rows as a table, its notes, the comparisons and the verdict."""
    from opslib.ops.bench.columns import note_of, row_columns

    notes = list(dict.fromkeys(filter(None, map(note_of, record.rows))))
    floor = record.noise_floor
    noise = f"; noise floor (A/A) ±{floor.half_width_pct:.1f} %" if floor else ""
    caption = (
        f"{record.lineage.host.label}; {record.inputs.count} images at {record.img_size} px; "
        f"± is the 95 % interval; milliseconds are this host's, then{noise}"
    )
    look = {"box": SIMPLE_HEAD, "collapse_padding": True}  # room for every column in a terminal
    table = terminal_table(row_columns(record, notes), record.rows, caption, **look)
    for shown, row in zip(table.rows, record.rows, strict=True):
        shown.end_section = row.boundary == "end_to_end"
    console.print(table)
    for number, note in enumerate(notes, start=1):
        say(console, f"[{number}] {note}")
    for one in record.comparisons:
        say(console, f"batch {one.batch_size}: {one.comparison.reason}")
    if record.parity is not None:
        word = "passed" if record.parity.passed else "failed"
        say(console, f"parity {word}: {record.parity.reason}")
    say_inputs(console, record.inputs)
    say_verdict(console, record.verdict, record.finding)


def diff(
    baseline: Annotated[str, typer.Argument(help="Run id, folder or bench record.")],
    candidate: Annotated[str, typer.Argument(help="Run id, folder or bench record.")],
    across_models: Annotated[bool, typer.Option(help="Compare different models.")] = False,
    root: RootOption = None,
    config: ConfigOption = None,
) -> int:
    """Show what differs between two benchmarks, beyond their noise."""
    from opslib.ops.bench.find_runs import compare_runs

    folder = find_root(root, config)
    comparison = compare_runs(baseline, candidate, folder, across_models=across_models)
    _show_comparison(make_console(), comparison)
    return int(ExitCode.PASS)


def check(
    against: Annotated[
        str | None, typer.Option(help="One run to hold it against, in place of all.")
    ] = None,
    root: RootOption = None,
    config: ConfigOption = None,
) -> int:
    """Hold the newest benchmark against all comparable ones before it; exit 3 on a regression."""
    from opslib.ops.bench.find_runs import check_newest

    what, comparison = check_newest(find_root(root, config), against)
    console = make_console()
    say(console, what)
    _show_comparison(console, comparison)
    if not comparison.comparable or comparison.of_another_model:
        return int(ExitCode.INCONCLUSIVE)
    return int(ExitCode.GATE_FAILED if comparison.count("worse") else ExitCode.PASS)


def _show_comparison(console: Console, comparison: RecordComparison) -> None:
    from opslib.ops.bench.columns import change_columns

    table = terminal_table(
        change_columns(comparison), comparison.rows, box=None, header_style="bold"
    )
    for shown, row in zip(table.rows, comparison.rows, strict=True):
        shown.style = OUTCOME_STYLES.get(row.outcome)
    console.print(table)
    say(console, comparison.summary)
    for line in (*comparison.notes, comparison.attribution):
        if line:
            say(console, line)


BENCH = Operation(
    "bench",
    {"bench": bench},
    {"diff": diff, "check": check},
    records_of("opslib.ops.bench", "BenchRecord", "bench_", "history:judge_record"),
)
