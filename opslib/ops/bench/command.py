"""`pillops bench`, `pillops report diff` and `check`: measure, compare what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console

from opslib.core.config import load_config
from opslib.core.errors import ExitCode, ParameterError, UnavailableError
from opslib.telling.columns import terminal_table
from opslib.telling.doors import (
    ConfigOption,
    RootOption,
    check_record_path,
    describe_experiment,
    find_root,
    make_console,
    say,
    say_inputs,
    say_verdict,
)
from opslib.telling.progress import show_progress

if TYPE_CHECKING:
    from opslib.ops.bench.compare import RecordComparison
    from opslib.ops.bench.record import BenchRecord

OUTCOME_STYLES = {"better": "green", "worse": "red bold", "not comparable": "dim"}
_BATCH_SIZE = re.compile(r"[1-9][0-9]{0,8}")


def parse_batch(text: str | None) -> tuple[int, ...] | None:
    """Return batch sizes from `1,2,4`, or None where none are given.

    Raises:
        ParameterError: a part is not a whole number from 1 up.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if any(not _BATCH_SIZE.fullmatch(part) for part in parts):
        raise ParameterError(f"--batch: got {text!r}; expected whole numbers from 1 up: 1,2,4")
    return tuple(int(part) for part in parts)


def bench(
    engine: Annotated[str | None, typer.Option(help="onnx, torch or both.")] = None,
    model: Annotated[Path | None, typer.Option(help="ONNX file; default: the latest.")] = None,
    inputs: Annotated[str | None, typer.Option(help='Images: "folder/**/*.jpg".')] = None,
    batch: Annotated[str | None, typer.Option(help="Batch sizes: 1,2,4,8,16,32.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; 0: all usable.")] = None,
    providers: Annotated[str | None, typer.Option(help="In order: CUDA,CPU.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Torch side of both.")] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds for everything.")] = None,
    strict: Annotated[bool, typer.Option(help="Refuse unreadable images.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where the record goes.")] = None,
    config: ConfigOption = None,
) -> int:
    """Measure latency and throughput at each batch size, after a parity check."""
    from opslib.ops.bench.run import keep_bench, run_bench
    from opslib.ops.bench.setup import BenchRequest

    check_record_path(json)
    loaded = load_config(config)
    console = make_console()
    notes = make_console(stderr=True)
    request = BenchRequest(
        engine=engine,
        model=model,
        checkpoint=checkpoint,
        inputs=inputs,
        batch=parse_batch(batch),
        threads=threads,
        providers=providers,
        budget_s=budget,
        strict=strict,
    )
    say(notes, f"benchmark of {describe_experiment(loaded)}")
    with show_progress(notes) as progress:
        record = run_bench(loaded, request, progress=progress)
    path = keep_bench(record, loaded, json)
    show_record(console, record)
    say(notes, f"record: {path}")
    if all(row.status == "unavailable" for row in record.rows) and record.verdict != "fail":
        raise UnavailableError(record.finding)
    return record.exit_code


def show_record(console: Console, record: BenchRecord) -> None:
    """Print a benchmark's rows as a table, its notes, the comparisons and the verdict."""
    from opslib.ops.bench.columns import note_of, row_columns

    notes = list(dict.fromkeys(filter(None, map(note_of, record.rows))))
    floor = record.noise_floor
    noise = f"; noise floor (A/A) ±{floor.half_width_pct:.1f} %" if floor else ""
    caption = (
        f"{record.lineage.host.label}; {record.inputs.count} images at {record.img_size} px; "
        f"± is the 95 % interval of the median{noise}"
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
    from opslib.ops.bench.diff import compare_runs

    folder = find_root(root, config)
    comparison = compare_runs(baseline, candidate, folder, across_models=across_models)
    _show_comparison(make_console(), comparison)
    return int(ExitCode.PASS)


def check(
    against: Annotated[str | None, typer.Option(help="Run to hold it against.")] = None,
    root: RootOption = None,
    config: ConfigOption = None,
) -> int:
    """Hold the newest benchmark against the last comparable one; exit 3 on a regression."""
    from opslib.ops.bench.compare import compare_records
    from opslib.ops.bench.diff import find_check_pair
    from opslib.ops.bench.record import BenchRecord

    old, new = find_check_pair(find_root(root, config), against)
    comparison = compare_records(BenchRecord.read(old), BenchRecord.read(new))
    console = make_console()
    say(console, f"{new.parent.name} against {old.parent.name}")
    _show_comparison(console, comparison)
    if not comparison.comparable:
        return int(ExitCode.INCONCLUSIVE)
    return int(ExitCode.GATE_FAILED if comparison.count("worse") else ExitCode.PASS)


def _show_comparison(console: Console, comparison: RecordComparison) -> None:
    from opslib.ops.bench.columns import CHANGE_COLUMNS

    table = terminal_table(CHANGE_COLUMNS, comparison.rows, box=None, header_style="bold")
    for shown, row in zip(table.rows, comparison.rows, strict=True):
        shown.style = OUTCOME_STYLES.get(row.outcome)
    console.print(table)
    say(console, comparison.summary)
