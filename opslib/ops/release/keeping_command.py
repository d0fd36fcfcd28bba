"""`pillops release list`, `copy`, `pin` and `prune`: the releases kept here, and those in a store
that several hosts share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console

from opslib.core.config import Config, load_config
from opslib.core.errors import ExitCode, ParameterError
from opslib.core.formatting import format_bytes, plural
from opslib.core.store_address import is_address
from opslib.ops.release.model_command import DryRunOption
from opslib.serving.command import make_show
from opslib.telling.columns import Column, terminal_table
from opslib.telling.doors import ConfigOption, describe_experiment, make_console, say

if TYPE_CHECKING:
    from opslib.ops.release.manifest import Manifest
    from opslib.ops.release.push import SecondCopy
    from opslib.ops.release.store import ListedRelease

NamedArgument = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Its name, or STORE/RELEASE.")
]
CopiedArgument = Annotated[
    str | None, typer.Argument(metavar="RELEASE", help="Name or path; default: the newest.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="STORE",
        help="Of a store, s3://…, sftp://… or file:///…; `copy_to`: the configured one.",
    ),
]
CopyToOption = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE", help="Put a verified second copy there: a folder, s3://… or sftp://…."
    ),
]


def list_all(store: StoreOption = None, config: ConfigOption = None) -> int:
    """List the releases in the store, the newest first."""
    from opslib.ops.release.record import describe_last, read_proofs
    from opslib.ops.release.remote import look_into, open_given
    from opslib.ops.release.store import list_releases, read_pins

    loaded = load_config(config)
    console = make_console()
    there: Sequence[ListedRelease]
    if store is None:
        there, place = list_releases(loaded), str(loaded.releases_dir)
    else:
        found = look_into(open_given(loaded, store), pinned=read_pins(loaded).names)
        there, place = found.releases, found.store.url
        if found.unfinished:
            say(console, f"{plural(len(found.unfinished), 'unfinished push', 'unfinished pushes')}")
    proofs = read_proofs(loaded)
    if not there:
        make = "create" if store is None else f"create --copy-to {place}"
        say(console, f"{place}: no release; make one with `pillops release {make}`")
        return 0
    rows = [(one, one.read_copy()) for one in there]
    columns: tuple[Column[tuple[ListedRelease, Manifest | None]], ...] = (
        Column("release", lambda row: f"{row[0].name}{' (pinned)' if row[0].pinned else ''}"),
        Column("size", lambda row: format_bytes(row[0].size_bytes), right=True),
        Column("models", lambda row: len(row[1].models) if row[1] else None, right=True),
        Column("about", lambda row: row[1] and "\n".join(Path(one).name for one in row[1].mains)),
        Column("last proved", lambda row: describe_last(proofs, row[0].name)),
    )
    if loaded.release.allowed_signers or any(one.has_signature for one in there):
        columns += (Column("signature", lambda row: "yes" if row[0].has_signature else "NONE"),)
    table = terminal_table(columns, rows, box=SIMPLE_HEAD, collapse_padding=True)
    # A name that is broken in two cannot be pasted: the lines get as long as they have to.
    whole = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, whole)
    console.print(table)
    broken = [one for one in there if one.problem]
    for one in broken:
        say(console, f"{one.name}: {one.problem}")
    total = format_bytes(sum(one.size_bytes for one in there))
    tail = f"; {len(broken)} to look at" if broken else ""
    say(console, f"{plural(len(there), 'release')}, {total} in {place}{tail}")
    return 0


def copy(
    name: CopiedArgument = None, copy_to: CopyToOption = None, config: ConfigOption = None
) -> int:
    """Put a verified second copy of a release into a folder or a store, or finish one."""
    from opslib.ops.release.push import put_copy
    from opslib.ops.release.store import find_release

    loaded = load_config(config)
    place = pick_place(loaded, copy_to)
    if place is None:
        raise ParameterError("--copy-to: expected a folder or an address; release.copy_to is null")
    say_copied(make_console(), put_copy(find_release(loaded, name).path, place, config=loaded))
    return 0


def pick_place(config: Config, given: str | None) -> str | None:
    """Return where a second copy goes: an address, or a folder, taken from here where it is
    `given`, and from the configuration's folder where that names it. Raises ParameterError,
    UnavailableError: see `push.check_place`."""
    from opslib.ops.release.push import check_place

    if given is not None:
        if not given.strip():  # a variable that was never set is no place
            raise ParameterError("--copy-to: is empty; expected a folder or an address")
        return check_place(given if is_address(given) else str(Path(given).expanduser().absolute()))
    return check_place(str(config.release.copy_to)) if config.release.copy_to is not None else None


def say_copied(console: Console, copied: SecondCopy) -> None:
    """Say where a second copy is and how it was checked."""
    say(console, f"second copy {copied.where}: {copied.checked}; {copied.took_s:.2f} s")


def describe_copying(archive: Path, place: str) -> str:
    """Return the command that puts a second copy of a release there."""
    return f"pillops release copy {quote(str(archive))} --copy-to {quote(place)}"


def pin(name: NamedArgument, config: ConfigOption = None) -> int:
    """Keep a release from being pruned."""
    return _pin(name, config, pinned=True)


def unpin(name: NamedArgument, config: ConfigOption = None) -> int:
    """Let a release be pruned again."""
    return _pin(name, config, pinned=False)


def _pin(name: str, config: Path | None, *, pinned: bool) -> int:
    from opslib.ops.release.remote import find_remote, pin_remote
    from opslib.ops.release.store import pin_release

    loaded = load_config(config)
    if is_address(name):
        release: ListedRelease = pin_remote(find_remote(name), pinned=pinned)
    else:
        release = pin_release(loaded, name, pinned=pinned)
    say(make_console(), f"{release.name}: {'' if pinned else 'no longer '}pinned")
    return 0


def prune(
    keep: Annotated[
        int | None, typer.Option(min=1, help="How many stay; default: release.keep.")
    ] = None,
    store: StoreOption = None,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
) -> int:
    """Delete old releases; never a pinned, served, previous or only one."""
    from opslib.core.plans import carry_out
    from opslib.ops.release.prune import find_kept, plan_prune
    from opslib.ops.release.remote import look_into, open_given
    from opslib.ops.release.remote_prune import plan_remote_prune
    from opslib.ops.release.store import list_releases, read_pins
    from opslib.serving.reachable import ask_services

    loaded = load_config(config)
    show = make_show()
    show(describe_experiment(loaded))
    live = ask_services(loaded)
    there: Sequence[ListedRelease]
    if store is None:
        there = list_releases(loaded)
        plan = plan_prune(loaded, keep=keep, live=live)
    else:
        found = look_into(open_given(loaded, store), pinned=read_pins(loaded).names)
        there = found.releases
        plan = plan_remote_prune(loaded, found, keep=keep, live=live)
    for name, why in find_kept(loaded, keep=keep, live=live, releases=there).items():
        show(f"  keep {name}: {why}")
    outcome = carry_out(plan, dry_run=dry_run, show=show)
    for skipped in outcome.skipped:
        show(f"skipped: {skipped.action.target}: {skipped.reason}")
    if outcome.done:
        show(f"freed {format_bytes(outcome.freed_bytes)}")
    return int(ExitCode.SKIPPED if outcome.skipped else ExitCode.PASS)
