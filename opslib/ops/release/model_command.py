"""`pillops rollback`, back to the last good model; `pillops card`, the card of a model that was
exported elsewhere; `pillops release prove`, restoring for real, one release or those whose turn it
is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from opslib.core.config import load_config
from opslib.core.errors import StorageError
from opslib.core.formatting import plural
from opslib.core.kinds import pick_kind
from opslib.serving.command import (
    EnvFileOption,
    HostOption,
    KindOption,
    PersistOption,
    TimeoutOption,
    check_pin,
    hint_shown,
    make_show,
    open_clients,
    settle_pin,
    switch,
)
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
    from opslib.ops.release.signature import Demand

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")]
UnsignedOption = Annotated[
    bool,
    typer.Option("--unsigned", help="Take it whoever signed it, this once; that is recorded."),
]


def demand_of(*, unsigned: bool) -> Demand:
    """Return whether a release must be signed as `release.allowed_signers` says."""
    return "overridden" if unsigned else "demanded"


def rollback(
    dry_run: DryRunOption = False,
    kind: KindOption = None,
    host: HostOption = None,
    env_file: EnvFileOption = None,
    timeout: TimeoutOption = None,
    persist: PersistOption = False,
    unsigned: UnsignedOption = False,
    config: ConfigOption = None,
) -> int:
    """Switch back to the last good model, and confirm it."""
    from opslib.core.plans import carry_out
    from opslib.ops.release.rollback import find_stable, plan_rollback
    from opslib.serving.precheck import Precheck
    from opslib.serving.swap import read_version

    loaded = load_config(config)
    chosen = pick_kind(loaded, kind)
    clients = open_clients(loaded, chosen, host, env_file, timeout)
    show = make_show()
    with clients[0] as first, hint_shown(show):
        live = read_version(first)
    what = "live" if chosen.sole else f"live {chosen.name}:"
    show(f"{describe_experiment(loaded)}: {what} {live.describe() if live else 'no model'}")
    check = Precheck(loaded, chosen, live)
    stable = find_stable(loaded, live, chosen, check, demand_of(unsigned=unsigned))
    for line in stable.skipped:
        show(f"passed over: {line}")
    check_pin(chosen, stable.path, env_file, persist=persist and not dry_run)
    run = partial(switch, loaded, chosen, str(stable.path), host, env_file, timeout, check)
    outcome = carry_out(plan_rollback(stable, run), dry_run=dry_run, show=show)
    if outcome.skipped:
        missed = outcome.skipped[0]
        raise StorageError(f"{missed.action.verb} {missed.action.target}: {missed.reason}")
    if not dry_run:
        settle_pin(chosen, stable.path, env_file, persist=persist)
    return 0


def card(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    kind: Annotated[
        str | None, typer.Option(help="Of which kind it is; default: as its name says.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=200, help="How many golden images.")] = 8,
    inputs: Annotated[
        str | None, typer.Option(help='Images: "folder/**/*"; default: the validation images.')
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the card that is there.")] = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
) -> int:
    """Make the card of a model that was exported elsewhere: digests, golden images, its answers."""
    from opslib.ops.release.card_making import make_card

    loaded = load_config(config)
    show = make_show()
    given = model if model.is_absolute() or not model.exists() else model.absolute()
    made = make_card(loaded, given, kind=kind, images=images, inputs=inputs, force=force)
    for note in made.notes:
        show(f"note: {note}")
    verb = "replace" if made.path.exists() else "write"
    golden = plural(len(made.sources), "golden image")
    show(f"{verb} {made.path}: digests of {plural(len(made.card.files), 'file')}, {golden}:")
    for source, image in zip(made.sources, made.card.golden_images, strict=True):
        show(f"  {image.image} from {source}")
    if dry_run:
        show("dry run: nothing was changed")
        return 0
    made.write()
    return 0


def prove(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[RELEASE]", help="Name or path; default: whose turn it is."),
    ] = None,
    turns: Annotated[int, typer.Option(min=1, max=1000, help="Releases to test by rota.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say whose turn it is.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where the record goes.")] = None,
    unsigned: UnsignedOption = False,
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
    turns = 0 if first else turns
    with show_progress(notes) as tell:
        record = prove_by_rota(
            loaded,
            first=first,
            turns=turns,
            dry_run=dry_run,
            demand=demand_of(unsigned=unsigned),
            progress=tell,
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
