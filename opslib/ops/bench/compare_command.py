"""`pillops report diff` and `pillops report check`: two benchmarks held against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from opslib.core.errors import ExitCode
from opslib.core.formatting import format_ms
from opslib.telling.doors import ConfigOption, RootOption, find_root, make_console, plain_cells, say

if TYPE_CHECKING:
    from opslib.ops.bench.compare import RecordComparison, RowComparison

OUTCOME_STYLES = {"better": "green", "worse": "red bold", "not comparable": "dim"}


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
    from opslib.ops.bench.diff import find_check_pair, read_bench

    old, new = find_check_pair(find_root(root, config), against)
    comparison = compare_records(read_bench(old), read_bench(new))
    console = make_console()
    say(console, f"{new.parent.name} against {old.parent.name}")
    _show_comparison(console, comparison)
    if not comparison.comparable:
        return int(ExitCode.INCONCLUSIVE)
    return int(ExitCode.GATE_FAILED if comparison.count("worse") else ExitCode.PASS)


def _show_comparison(console: Console, comparison: RecordComparison) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("engine", "provider", "batch", "boundary"):
        table.add_column(title, justify="right" if title == "batch" else "left")
    for title in ("before ms", "after ms", "change", "99 % interval"):
        table.add_column(title, justify="right")
    table.add_column("outcome")
    for row in comparison.rows:
        style = OUTCOME_STYLES.get(row.outcome)
        cells = (
            row.engine,
            row.provider,
            str(row.batch_size),
            row.boundary.replace("_", " "),
            format_ms(row.baseline_p50_ms),
            format_ms(row.candidate_p50_ms),
            *_change_cells(row),
            f"{row.outcome}: {row.reason}" if row.reason else row.outcome,
        )
        table.add_row(*plain_cells(cells), style=style)
    console.print(table)
    say(console, comparison.summary)


def _change_cells(row: RowComparison) -> tuple[str, str]:
    if row.change_pct is None or row.latency_ratio_ci99 is None:
        return "–", "–"
    low, high = (100 * (end - 1) for end in row.latency_ratio_ci99)
    return f"{row.change_pct:+.1f} %", f"{low:+.1f} to {high:+.1f} %"
