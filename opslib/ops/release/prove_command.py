"""`pillops release prove`: restore for real, one release or those whose turn it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from opslib.core.config import load_config
from opslib.core.formatting import plural
from opslib.telling.doors import (
    ConfigOption,
    check_record_path,
    describe_experiment,
    make_console,
    plain_cells,
    say,
    say_verdict,
)

if TYPE_CHECKING:
    from opslib.ops.release.record import ProofRecord


def prove(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[RELEASE]", help="Name or path; default: whose turn it is."),
    ] = None,
    turns: Annotated[int, typer.Option(min=1, max=1000, help="Releases to test by rota.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say whose turn it is.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where the record goes.")] = None,
    config: ConfigOption = None,
) -> int:
    """Restore a release for real, serve it both ways, ask its golden images, clean up."""
    from opslib.ops.release.rota import keep_rota, prove_by_rota
    from opslib.ops.release.store import find_release
    from opslib.telling.progress import show_progress

    check_record_path(json)
    loaded = load_config(config)
    console, notes = make_console(), make_console(stderr=True)
    first = find_release(loaded, name) if name is not None else None
    say(notes, f"restore test of {describe_experiment(loaded)}")
    with show_progress(notes) as progress:
        record = prove_by_rota(
            loaded, first=first, turns=0 if first else turns, dry_run=dry_run, progress=progress
        )
    if dry_run:
        say(console, record.finding)
        return 0
    for test in record.tests:
        show_test(console, test)
    left = len(record.unproved_after)
    if left:
        say(console, f"not proved as of now: {left} of {plural(len(record.releases), 'release')}")
    say(notes, f"record: {keep_rota(record, loaded, json)}")
    return record.exit_code


def show_test(console: Console, test: ProofRecord) -> None:
    """Print one restore test step by step, then its verdict."""
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("step", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    table.add_column("found")
    for step in test.steps:
        name, seconds, found = plain_cells([step.name, f"{step.took_s:.2f}", step.found])
        table.add_row(name, seconds, found if step.ok else Text(found.plain, "red"))
    console.print(table)
    say_verdict(console, test.verdict, test.finding)
