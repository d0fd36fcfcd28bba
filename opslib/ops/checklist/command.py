"""`pillops check daily|weekly|monthly`: the operator's checklist in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opslib.core.config import load_config
from opslib.core.errors import StorageError
from opslib.telling.doors import (
    ConfigOption,
    check_record_path,
    describe_experiment,
    make_console,
    plain_cells,
    print_error,
    say,
    say_verdict,
)

if TYPE_CHECKING:
    from rich.console import Console

    from opslib.ops.checklist.record import ChecklistRecord

STATE_STYLES = {
    "failed": "red bold",
    "attention": "yellow bold",
    "unknown": "magenta bold",
    "ok": "green",
    "not applicable": "dim",
}
VERDICT_WORDS = {"pass": "ok", "fail": "failed", "inconclusive": "attention"}


def check(
    period: Annotated[str, typer.Argument(help="daily, weekly or monthly.")] = "daily",
    hours: Annotated[
        float | None, typer.Option(help="How far back logs are read; default: the period.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Where the record goes.")] = None,
    config: ConfigOption = None,
) -> int:
    """Go through the operator's checklist: 0 all is well, 4 look at it, 3 something failed."""
    from opslib.ops.checklist.record import keep_checklist
    from opslib.ops.checklist.run import run_checklist
    from opslib.telling.progress import show_steps

    check_record_path(json)
    loaded = load_config(config)
    notes = make_console(stderr=True)
    say(notes, f"{period} checklist of {describe_experiment(loaded)}")
    with show_steps(notes) as progress:
        shown = progress if notes.is_terminal else None
        record = run_checklist(loaded, period, hours=hours, progress=shown)
    show_checklist(make_console(), record)
    try:
        say(notes, f"record: {keep_checklist(record, loaded, json)}")
    except StorageError as error:  # a full disk, which the list says; its own code goes first
        code = print_error(error)
        return record.exit_code or code
    return record.exit_code


def show_checklist(console: Console, record: ChecklistRecord) -> None:
    """Print every item, the worst first, with its evidence and what to do; then the verdict."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("state", no_wrap=True)
    table.add_column("item", no_wrap=True)
    table.add_column("found", overflow="fold")
    for item in record.by_state():
        lines = [*item.told, *([f"next: {item.next_step}"] if item.next_step else [])]
        state, title, found = plain_cells((item.state, item.title, "\n".join(lines)))
        state.stylize(STATE_STYLES[item.state])
        if item.next_step:
            found.stylize("bold", len(found) - len(lines[-1]))
        if item.state == "not applicable":
            found.stylize("dim")
        table.add_row(state, title, found)
    console.print(table)
    word = VERDICT_WORDS[record.verdict]
    say_verdict(console, record.verdict, record.finding, word=word)
