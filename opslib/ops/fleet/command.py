"""`pillops report fleet`, and what the rest of the house knows of the fleet."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from opslib.telling.columns import Column, terminal_table
from opslib.telling.doors import ConfigOption, RootOption, find_root, make_console, say, say_verdict
from opslib.telling.operation import Operation


def fleet(
    days: Annotated[float, typer.Option(help="Older runs count for nothing.")] = 180.0,
    silent_days: Annotated[float, typer.Option(help="Without a run: not heard of.")] = 8.0,
    behind_days: Annotated[
        float, typer.Option(help="How long a newer model is served elsewhere.")
    ] = 1.0,
    root: RootOption = None,
    config: ConfigOption = None,
) -> int:
    """Show all hosts: which is slower than its like, behind the newest model, or silent."""
    from opslib.ops.fleet.columns import (
        HOST_COLUMNS,
        LIKE_COLUMNS,
        MODEL_COLUMNS,
        list_current,
        list_likened,
    )
    from opslib.ops.fleet.run import run_fleet

    folder = find_root(root, config)
    record = run_fleet(folder, days=days, silent_days=silent_days, behind_days=behind_days)
    console = make_console()
    tables: tuple[tuple[Sequence[Column[Any]], Sequence[Any]], ...] = (
        (HOST_COLUMNS, record.hosts),
        (LIKE_COLUMNS, list_likened(record)),
        (MODEL_COLUMNS, list_current(record)),
    )
    for columns, rows in tables:
        if rows:
            console.print(terminal_table(columns, rows, box=None, header_style="bold"))
            console.print()
    for note in record.notes:
        say(console, note)
    say_verdict(console, record.verdict, record.finding)
    return record.exit_code


FLEET = Operation("fleet", {}, report_commands={"fleet": fleet})
