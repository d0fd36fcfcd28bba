"""`pillops serve`, `reload` and `key rotate`, and what a switch shares with `rollback`: options,
clients and the pin."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opslib.core.config import Config, load_config
from opslib.core.env_file import ENV_NAME
from opslib.core.environment import load_service_environment
from opslib.core.errors import ConfigError, ParameterError, TerminatedError
from opslib.core.kinds import Kind, list_kinds, pick_classifier, pick_kind_of
from opslib.core.models import resolve_model
from opslib.telling.doors import ConfigOption, describe_experiment, make_console, say

if TYPE_CHECKING:
    from opslib.serving.client import ServiceClient
    from opslib.serving.live import LiveVersion
    from opslib.serving.precheck import Precheck

EnvFileOption = Annotated[Path | None, typer.Option("--env-file", help="Another .env.")]
HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", "--url", "-u", help="Service URL; may be given several times."),
]
KindOption = Annotated[
    str | None, typer.Option(help="Which kind of models, where the service has several.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", "-t", help="Seconds to wait for a reload.", min=0.1, max=86_400),
]
PersistOption = Annotated[bool, typer.Option("--persist", help="Update the pin too.")]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)
    ] = None,
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

    with suppress(TerminatedError, KeyboardInterrupt):
        serve_forever(loaded, host=host, port=port, env_file=env_file, on_ready=announce)
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
    persist: PersistOption = False,
    config: ConfigOption = None,
) -> int:
    """Switch running services to a model, one after the other, and confirm each."""
    loaded = load_config(config)
    target = path if path.is_absolute() or not path.exists() else path.absolute()
    if target.is_symlink():
        resolve_model(target)  # a link that leads nowhere means nothing on another host either
    given = (kind, "detection" if detection else None, "classification" if classification else None)
    named = list(dict.fromkeys(one for one in given if one is not None))
    if len(named) > 1:
        raise ParameterError(f"kind: got {' and '.join(named)}; expected one")
    chosen = pick_kind_of(loaded, target, named[0] if named else None)
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
    from opslib.serving.keys import rotate_key

    target = env_file or load_config(config).root / ENV_NAME
    done = rotate_key(target)
    show = make_show()
    age = "none" if done.old_age_days is None else f"{done.old_age_days:.0f} days old"
    age = "dated after now" if (done.old_age_days or 0) < 0 else age
    show(f"{done.env_file}: new API_KEY written (the key before: {age})")
    for number, step in enumerate(done.next_steps, start=1):
        show(f"{number}. {step}")
    return 0


def make_show() -> Callable[[str], None]:
    """Return what prints a line of a switch."""
    return partial(say, make_console())


def open_clients(
    config: Config,
    kind: Kind,
    hosts: list[str] | None,
    env_file: Path | None,
    timeout: float | None,
) -> "list[ServiceClient]":
    from opslib.serving.client import ServiceClient
    from opslib.serving.keys import KEY_VARIABLE

    secret = load_service_environment(config, env_file).api_key
    if secret is None:
        raise ConfigError(f"{KEY_VARIABLE}: not set; put the service's key into .env")
    key = secret.get_secret_value()
    urls = hosts or [config.client.url]
    return [ServiceClient(url, key, kind.client, timeout_s=timeout) for url in urls]


def switch(
    config: Config,
    kind: Kind,
    path: str,
    hosts: list[str] | None,
    env_file: Path | None,
    timeout: float | None,
    check: "Precheck | None" = None,
    *,
    dry_run: bool = False,
) -> None:
    from opslib.serving.precheck import Precheck
    from opslib.serving.swap import switch_hosts

    show = make_show()
    model = Path(path)

    def check_here(before: "LiveVersion | None") -> str | None:
        same = check is not None and check.live == before
        return (check if check and same else Precheck(config, kind, before))(model)

    with hint_shown(show):
        clients = open_clients(config, kind, hosts, env_file, timeout)
        switch_hosts(clients, path, show, check_here, dry_run=dry_run)


@contextmanager
def hint_shown(show: Callable[[str], None]) -> Iterator[None]:
    """Say what to do about a service that refuses or does not answer, before that is told."""
    from opslib.serving.client import ServiceError

    try:
        yield
    except ServiceError as error:
        show(f"hint: {error.hint}")
        raise


def check_pin(kind: Kind, path: Path, env_file: Path | None, *, persist: bool) -> None:
    """Refuse before the switch what could not be made to last after it."""
    from opslib.serving.dotenv import check_variable

    if persist:
        check_variable(kind.pin_source(env_file), kind.pin, str(path))


def settle_pin(kind: Kind, path: Path, env_file: Path | None, *, persist: bool) -> None:
    """Say or repair that `.env` pins another model than the one now served."""
    from opslib.serving.dotenv import set_variable

    target = kind.pin_source(env_file)
    show = make_show()
    if persist:
        set_variable(target, kind.pin, str(path))
        show(f"{target}: {kind.pin}={path}")
        return
    pinned = next(iter(kind.pins(env_file)), None)
    if pinned is not None and os.path.realpath(pinned) != os.path.realpath(path):
        show(
            f"warning: {target} pins {kind.pin}={pinned}: a restart brings that one back; "
            "--persist updates it"
        )
