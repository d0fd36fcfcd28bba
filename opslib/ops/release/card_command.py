"""`pillops card`: the card of a model that was exported elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opslib.core.config import load_config
from opslib.core.formatting import plural
from opslib.telling.doors import ConfigOption, make_console, say


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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")] = False,
    config: ConfigOption = None,
) -> int:
    """Make the card of a model that was exported elsewhere: digests, golden images, its answers."""
    from opslib.ops.release.card_making import make_card

    loaded = load_config(config)
    console = make_console()
    given = model if model.is_absolute() or not model.exists() else model.absolute()
    made = make_card(loaded, given, kind=kind, images=images, inputs=inputs, force=force)
    for note in made.notes:
        say(console, f"note: {note}")
    verb = "replace" if made.path.exists() else "write"
    golden = plural(len(made.sources), "golden image")
    say(
        console, f"{verb} {made.path}: digests of {plural(len(made.card.files), 'file')}, {golden}:"
    )
    for source, image in zip(made.sources, made.card.golden_images, strict=True):
        say(console, f"  {image.image} from {source}")
    if dry_run:
        say(console, "dry run: nothing was changed")
        return 0
    made.write()
    return 0
