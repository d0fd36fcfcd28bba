"""`pillops rollback`, back to the last good model; `pillops card`, the card of a model that was
exported elsewhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from opslib.core.config import load_config
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
from opslib.telling.doors import ConfigOption, describe_experiment

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")]


def rollback(
    dry_run: DryRunOption = False,
    kind: KindOption = None,
    host: HostOption = None,
    env_file: EnvFileOption = None,
    timeout: TimeoutOption = None,
    persist: PersistOption = False,
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
    stable = find_stable(loaded, live, chosen, check)
    for line in stable.skipped:
        show(f"passed over: {line}")
    check_pin(chosen, stable.path, env_file, persist=persist and not dry_run)
    run = partial(switch, loaded, chosen, str(stable.path), host, env_file, timeout, check)
    carry_out(plan_rollback(stable, run), dry_run=dry_run, show=show)
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
