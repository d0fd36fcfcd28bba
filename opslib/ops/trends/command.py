"""`pillops report trends`, and what the rest of the house knows of the trends."""

from typing import Annotated

import typer

from opslib.telling.columns import terminal_table
from opslib.telling.doors import ConfigOption, RootOption, find_root, make_console, say_verdict
from opslib.telling.operation import Operation


def trends(
    days: Annotated[float, typer.Option(help="Steps told in so many days count.")] = 7.0,
    notebook: Annotated[str | None, typer.Option(help="Only this one: 01_bench.")] = None,
    root: RootOption = None,
    config: ConfigOption = None,
) -> int:
    """Show each figure over all its runs and the steps in its level; exit 3 on a worse one."""
    from opslib.ops.trends.columns import STEP_COLUMNS, TREND_COLUMNS, list_steps
    from opslib.ops.trends.run import run_trends

    record = run_trends(find_root(root, config), days=days, notebook=notebook)
    console = make_console()
    if record.rows:
        console.print(terminal_table(TREND_COLUMNS, record.rows, box=None, header_style="bold"))
    steps = list_steps(record)
    if steps:
        console.print()
        console.print(terminal_table(STEP_COLUMNS, steps, box=None, header_style="bold"))
    say_verdict(console, record.verdict, record.finding)
    return record.exit_code


TRENDS = Operation("trends", {}, report_commands={"trends": trends})
