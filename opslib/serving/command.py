"""`pillops serve`, `reload`, `rollback` and `key rotate`: the service and its switches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opslib.core.config import load_config
from opslib.core.env_file import ENV_NAME
from opslib.core.errors import ParameterError, TerminatedError
from opslib.core.kinds import list_kinds, pick_classifier, pick_kind_of
from opslib.core.models import resolve_model
from opslib.serving.switch_doors import (
    EnvFileOption,
    HostOption,
    KindOption,
    TimeoutOption,
    check_pin,
    make_show,
    settle_pin,
    switch,
)
from opslib.telling.doors import ConfigOption, describe_experiment, make_console, say

if TYPE_CHECKING:
    pass


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    env_file: EnvFileOption = None,
    config: ConfigOption = None,
) -> int:
    """Serve the model over HTTP until stopped; what is in flight is finished first."""
    from opslib.serving.server import serve as serve_forever

    loaded = load_config(config)
    notes = make_console(stderr=True)

    def announce(url: str, model: str) -> None:
        place = describe_experiment(loaded)
        say(notes, f"{place}: serving {model} at {url} (pid {os.getpid()})")
        kinds = list_kinds(loaded)
        if len(kinds) > 1:
            one = pick_classifier(loaded).name
            rest = ", ".join(kind.name for kind in kinds if kind.name != one)
            say(notes, f"note: of {len(kinds)} kinds it serves {one} alone, and not {rest}")

    try:
        serve_forever(loaded, host=host, port=port, env_file=env_file, on_ready=announce)
    except (TerminatedError, KeyboardInterrupt):
        return 0
    return 0


def reload(
    path: Annotated[Path, typer.Option("--path", "-p", help="The ONNX model to switch to.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge the model and ask each service, switch none.")
    ] = False,
    kind: KindOption = None,
    detection: Annotated[
        bool, typer.Option("--detection", help="The same as --kind detection.")
    ] = False,
    classification: Annotated[
        bool, typer.Option("--classification", help="The same as --kind classification.")
    ] = False,
    host: HostOption = None,
    env_file: EnvFileOption = None,
    timeout: TimeoutOption = None,
    persist: Annotated[bool, typer.Option("--persist", help="Update the pin too.")] = False,
    config: ConfigOption = None,
) -> int:
    """Switch running services to a model, one after the other, and confirm each."""
    loaded = load_config(config)
    target = path if path.is_absolute() or not path.exists() else path.absolute()
    if target.is_symlink():
        resolve_model(target)  # a link that leads nowhere means nothing on another host either
    named = {"detection": detection, "classification": classification}
    chosen = pick_kind_of(loaded, target, _name_kind(kind, named))
    check_pin(chosen, target, env_file, persist=persist and not dry_run)
    switch(loaded, chosen, str(target), host, env_file, timeout, dry_run=dry_run)
    if dry_run:
        make_show()("dry run: nothing was changed")
        return 0
    settle_pin(chosen, target, env_file, persist=persist)
    return 0


key_app = typer.Typer(help="The service's API key.", no_args_is_help=True)


@key_app.command()
def rotate(env_file: EnvFileOption = None, config: ConfigOption = None) -> int:
    """Put a new API key into .env and say what to restart and update."""
    from opslib.serving.rotation import rotate_key

    target = env_file or load_config(config).root / ENV_NAME
    done = rotate_key(target)
    show = make_show()
    age = "none" if done.old_age_days is None else f"{done.old_age_days:.0f} days old"
    age = "dated after now" if (done.old_age_days or 0) < 0 else age
    show(f"{done.env_file}: new API_KEY written (the key before: {age})")
    for number, step in enumerate(done.next_steps, start=1):
        show(f"{number}. {step}")
    return 0


def _name_kind(name: str | None, options: Mapping[str, bool]) -> str | None:
    """The kind that `--kind` or an option of its own name means, or None.

    Raises:
        ParameterError: two are named.
    """
    given = [] if name is None else [name]
    named = dict.fromkeys([*given, *(one for one, on in options.items() if on)])
    if len(named) > 1:
        raise ParameterError(f"kind: got {' and '.join(named)}; expected one")
    return next(iter(named), None)
