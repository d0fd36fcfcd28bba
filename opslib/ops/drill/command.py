"""`pillops drill`: rehearse swap and rollback under load, print the verdict, keep the record."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from opslib.core.config import load_config
from opslib.core.formatting import format_duration
from opslib.serving.command import KindOption
from opslib.telling.columns import terminal_table
from opslib.telling.doors import (
    ConfigOption,
    check_record_path,
    describe_experiment,
    make_console,
    say,
    say_verdict,
)
from opslib.telling.progress import show_progress

if TYPE_CHECKING:
    from opslib.ops.drill.record import DrillRecord


def drill(
    url: Annotated[str | None, typer.Option(help="A running service; default: staging.")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Another host is meant.")] = False,
    share_gpu: Annotated[
        bool, typer.Option("--share-gpu", help="Load a card that is serving.")
    ] = False,
    model: Annotated[Path | None, typer.Option(help="Begin and end with it.")] = None,
    other: Annotated[Path | None, typer.Option(help="Swap to it and back.")] = None,
    inputs: Annotated[str | None, typer.Option(help='Images: "folder/**/*.jpg".')] = None,
    load_share: Annotated[float | None, typer.Option(help="Of the capacity, 0.01 to 0.9.")] = None,
    swaps: Annotated[int | None, typer.Option(help="Swaps, there and back.")] = None,
    long: Annotated[
        bool, typer.Option("--long", help="The soak: 20 swaps, 200 for leaks.")
    ] = False,
    kind: KindOption = None,
    allow_bad_models: Annotated[
        bool, typer.Option("--allow-bad-models", help="Offer them to a service not ours.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Where the record goes.")] = None,
    config: ConfigOption = None,
) -> int:
    """Swap, roll back, provoke and kill a service under load; say whether anyone noticed."""
    from opslib.ops.drill.request import DrillRequest
    from opslib.ops.drill.run import keep_drill, run_drill

    check_record_path(json)
    loaded = load_config(config)
    request = DrillRequest(
        url=url,
        confirm=confirm,
        share_gpu=share_gpu,
        model=model,
        other=other,
        inputs=inputs,
        load_share=load_share,
        swaps=swaps,
        long=long,
        kind=kind,
        allow_bad_models=allow_bad_models,
    )
    notes = make_console(stderr=True)
    where = f"the service at {request.url}" if request.url else "a staging service on a copy"
    say(notes, f"drill of {where}; {describe_experiment(loaded)}")
    with show_progress(notes) as progress:
        record = run_drill(loaded, request, progress=progress)
    path = keep_drill(record, loaded, json)
    show_drill(make_console(), record)
    say(notes, f"record: {path}")
    return record.exit_code


def show_drill(console: Console, record: DrillRecord) -> None:
    """Print the lines of the verdict, broken promises, notes, and the verdict."""
    from opslib.ops.drill.columns import CHECK_COLUMNS

    console.print(terminal_table(CHECK_COLUMNS, record.checks, _caption(record)))
    for check in record.checks:
        if check.reason:
            say(console, f"{check.name}: {check.reason}")
    for injection in record.injections:
        if injection.held is False:
            say(console, f"broken: {injection.injected}: {injection.seen}")
    untried = defaultdict(list)
    for injection in record.injections:
        if injection.held is None:
            untried[injection.seen.removeprefix("not tried: ")].append(injection.injected)
    for reason, names in untried.items():
        what = names[0] if len(names) == 1 else f"{len(names)} of {len(record.injections)} faults"
        say(console, f"not tried: {what}: {reason}")
    for note in record.notes:
        say(console, note)
    say_verdict(console, record.verdict, record.finding)


def _caption(record: DrillRecord) -> str:
    return (
        f"{record.lineage.host.label}, {record.device}; {record.requests:,} requests at "
        f"{record.rate_per_s:.0f} a second in {format_duration(record.wall_s)}"
    )
