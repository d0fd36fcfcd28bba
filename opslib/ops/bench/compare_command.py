"""`pillops report diff` and `pillops report check`: two benchmarks held against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from opslib.core.errors import ExitCode
from opslib.telling.columns import terminal_table
from opslib.telling.doors import ConfigOption, RootOption, find_root, make_console, say

if TYPE_CHECKING:
    from opslib.ops.bench.compare import RecordComparison

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
    from opslib.ops.bench.columns import CHANGE_COLUMNS

    table = terminal_table(CHANGE_COLUMNS, comparison.rows, box=None, header_style="bold")
    for shown, row in zip(table.rows, comparison.rows, strict=True):
        shown.style = OUTCOME_STYLES.get(row.outcome)
    console.print(table)
    say(console, comparison.summary)
