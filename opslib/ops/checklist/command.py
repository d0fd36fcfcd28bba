"""`pillops check daily|weekly|monthly`, the operator's checklist in the terminal, and
`pillops doctor`: what is installed, what really works here, what to do next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opslib.core.config import Config, load_config
from opslib.core.errors import ExitCode, StorageError
from opslib.core.language import mark, tr
from opslib.core.overrides import is_own_variable
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
    from rich.text import Text

    from opslib.ops.checklist.record import ChecklistRecord

STATE_STYLES = {
    "failed": "red bold",
    "attention": "yellow bold",
    "unknown": "magenta bold",
    "ok": "green",
    "not applicable": "dim",
    "note": "yellow",
    "problem": "red bold",
}
VERDICT_WORDS = {"pass": mark("ok"), "fail": mark("failed"), "inconclusive": mark("attention")}


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
        tell = progress if notes.is_terminal else lambda _: None
        record = run_checklist(loaded, period, hours=hours, progress=tell)
    show_checklist(make_console(), record)
    try:
        say(notes, f"record: {keep_checklist(record, loaded, json)}")
    except StorageError as error:  # a full disk, which the list says; its own code goes first
        code = print_error(error)
        return record.exit_code or code
    return record.exit_code


def show_checklist(console: Console, record: ChecklistRecord) -> None:
    """Print every item, the worst first, with its evidence and what to do; then the verdict."""
    rows: list[tuple[Text, ...]] = []
    for item in record.by_state():
        next_step = tr("next: {step}", step=item.next_step)
        lines = [*item.told, *([next_step] if item.next_step else [])]
        state, title, found = plain_cells((item.state_word, item.shown_title, "\n".join(lines)))
        state.stylize(STATE_STYLES[item.state])
        if item.next_step:
            found.stylize("bold", len(found) - len(lines[-1]))
        if item.state == "not applicable":
            found.stylize("dim")
        rows.append((state, title, found))
    _print_table(console, rows, tr("state"), tr("item"), tr("found"))
    say_verdict(console, record.verdict, record.finding, word=VERDICT_WORDS[record.verdict])


def doctor(config: ConfigOption = None) -> int:
    """Say what is installed, what really works here, and what to do next; changes nothing."""
    from opslib.ops.checklist.doctor import examine, list_next_steps

    loaded = load_config(config)
    console = make_console()
    say(console, f"{describe_experiment(loaded)}; configuration {loaded.source}")
    findings = list(examine(loaded))
    rows = [plain_cells((one.area, one.state_word, one.seen)) for one in findings]
    for one, (_, state, _) in zip(findings, rows, strict=True):
        state.stylize(STATE_STYLES[one.state])
    _print_table(console, rows)
    resolved = tr("configuration as resolved (secrets stay in .env and are not shown)")
    say(console, f"\n{resolved}")
    _print_table(console, map(plain_cells, describe_config(loaded)))
    named = sorted(filter(is_own_variable, os.environ))
    if named:
        say(console, tr("overridden by the environment: {names}", names=", ".join(named)))
    steps = list_next_steps(findings)
    beside = Path(sys.executable).with_name("pillops")
    told = tr("what to do next") if steps else tr("nothing to do")
    if steps and not shutil.which("pillops"):
        told = tr("{told} (`pillops` is {path})", told=told, path=beside)
    say(console, f"\n{told}")
    for number, step in enumerate(steps, start=1):
        say(console, f"{number}. {step}")
    failed = any(one.state == "problem" for one in findings)
    return int(ExitCode.GATE_FAILED if failed else ExitCode.PASS)


def describe_config(config: Config) -> list[tuple[str, str]]:
    """Return each section and its keys with their values, paths resolved, as one line each."""
    given = config.model_dump(exclude_unset=True)
    lines = []
    for name in type(config).model_fields:
        section = given.get(name, {})
        if isinstance(section, dict):
            pairs = [f"{key} {_show(config, value)}" for key, value in section.items()]
            lines.append((name, "; ".join(pairs) or "defaults"))
    return lines


def _show(config: Config, value: Any) -> str:
    if isinstance(value, Path):
        return str(config.resolve(value))
    if isinstance(value, tuple):
        return ",".join(_show(config, one) for one in value) or "none"
    if isinstance(value, dict):
        return " ".join(f"{key}={_show(config, one)}" for key, one in value.items()) or "none"
    return "none" if value is None else str(value)


def _print_table(console: Console, rows: Iterable[Sequence[Text]], *header: str) -> None:
    """Print rows without a frame; only the last column's lines are broken."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.show_header, table.header_style = bool(header), "bold"
    for name in header:
        table.add_column(name, no_wrap=name != header[-1], overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
