"""`pillops serve`, `reload`, `rollback` and `key rotate`: the service and its switches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opslib.cli.doors import describe_experiment, make_console, say
from opslib.core.config import Config, load_config
from opslib.core.env_file import ENV_NAME
from opslib.core.environment import load_service_environment
from opslib.core.errors import ConfigError, ParameterError, TerminatedError
from opslib.core.kinds import Kind, list_kinds, pick_classifier, pick_kind, pick_kind_of
from opslib.core.models import resolve_model

if TYPE_CHECKING:
    from opslib.serving.client import LiveVersion, ServiceClient
    from opslib.serving.precheck import Precheck

ConfigOption = Annotated[Path | None, typer.Option(help="Configuration file.")]
EnvFileOption = Annotated[Path | None, typer.Option("--env-file", help="Another .env.")]


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


HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", "--url", "-u", help="Service URL; may be given several times."),
]
KindOption = Annotated[
    str | None, typer.Option(help="Which kind of models, where the service has several.")
]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", "-t", help="Seconds to wait for a reload.")
]


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
    _check_pin(chosen, target, env_file, persist=persist and not dry_run)
    _switch(loaded, chosen, str(target), host, env_file, timeout, dry_run=dry_run)
    if dry_run:
        _make_show()("dry run: nothing was changed")
        return 0
    _settle_pin(chosen, target, env_file, persist=persist)
    return 0


def rollback(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")] = False,
    kind: KindOption = None,
    host: HostOption = None,
    env_file: EnvFileOption = None,
    timeout: TimeoutOption = None,
    persist: Annotated[bool, typer.Option("--persist", help="Update the pin too.")] = False,
    config: ConfigOption = None,
) -> int:
    """Switch back to the last good model, and confirm it."""
    from opslib.core.plans import carry_out
    from opslib.release.rollback import find_stable, plan_rollback
    from opslib.serving.precheck import Precheck
    from opslib.serving.swap import read_version

    loaded = load_config(config)
    chosen = pick_kind(loaded, kind)
    clients = _open_clients(loaded, chosen, host, env_file, timeout)
    show = _make_show()
    with clients[0] as first, _hint_shown(show):
        live = read_version(first)
    what = "live" if chosen.sole else f"live {chosen.name}:"
    show(f"{describe_experiment(loaded)}: {what} {live.describe() if live else 'no model'}")
    check = Precheck(loaded, chosen, live)
    stable = find_stable(loaded, live, chosen, check)
    for line in stable.skipped:
        show(f"passed over: {line}")
    _check_pin(chosen, stable.path, env_file, persist=persist and not dry_run)
    run = partial(_switch, loaded, chosen, str(stable.path), host, env_file, timeout, check)
    carry_out(plan_rollback(stable, run), dry_run=dry_run, show=show)
    if not dry_run:
        _settle_pin(chosen, stable.path, env_file, persist=persist)
    return 0


key_app = typer.Typer(help="The service's API key.", no_args_is_help=True)


@key_app.command()
def rotate(env_file: EnvFileOption = None, config: ConfigOption = None) -> int:
    """Put a new API key into .env and say what to restart and update."""
    from opslib.serving.rotation import rotate_key

    target = env_file or load_config(config).root / ENV_NAME
    done = rotate_key(target)
    show = _make_show()
    age = "none" if done.old_age_days is None else f"{done.old_age_days:.0f} days old"
    age = "dated after now" if (done.old_age_days or 0) < 0 else age
    show(f"{done.env_file}: new API_KEY written (the key before: {age})")
    for number, step in enumerate(done.next_steps, start=1):
        show(f"{number}. {step}")
    return 0


def _make_show() -> Callable[[str], None]:
    console = make_console()
    return lambda line: say(console, line)


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


def _open_clients(
    config: Config,
    kind: Kind,
    hosts: list[str] | None,
    env_file: Path | None,
    timeout: float | None,
) -> list[ServiceClient]:
    from opslib.serving.client import ServiceClient
    from opslib.serving.keys import KEY_VARIABLE

    secret = load_service_environment(config, env_file).api_key
    if secret is None:
        raise ConfigError(f"{KEY_VARIABLE}: not set; put the service's key into .env")
    key = secret.get_secret_value()
    urls = hosts or [config.client.url]
    return [ServiceClient(url, key, kind.client, timeout_s=timeout) for url in urls]


def _switch(
    config: Config,
    kind: Kind,
    path: str,
    hosts: list[str] | None,
    env_file: Path | None,
    timeout: float | None,
    check: Precheck | None = None,
    *,
    dry_run: bool = False,
) -> None:
    from opslib.serving.precheck import Precheck
    from opslib.serving.swap import switch_hosts

    show = _make_show()
    model = Path(path)

    def check_here(before: LiveVersion | None) -> str | None:
        same = check is not None and check.live == before
        return (check if check and same else Precheck(config, kind, before))(model)

    with _hint_shown(show):
        clients = _open_clients(config, kind, hosts, env_file, timeout)
        switch_hosts(clients, path, show, check_here, dry_run=dry_run)


@contextmanager
def _hint_shown(show: Callable[[str], None]) -> Iterator[None]:
    """Say what to do about a service that refuses or does not answer, before that is told."""
    from opslib.serving.client import ServiceError

    try:
        yield
    except ServiceError as error:
        show(f"hint: {error.hint}")
        raise


def _check_pin(kind: Kind, path: Path, env_file: Path | None, *, persist: bool) -> None:
    """Refuse before the switch what could not be made to last after it."""
    from opslib.serving.dotenv import check_variable

    if persist:
        check_variable(kind.pin_source(env_file), kind.pin, str(path))


def _settle_pin(kind: Kind, path: Path, env_file: Path | None, *, persist: bool) -> None:
    """Say or repair that `.env` pins another model than the one now served."""
    from opslib.serving.dotenv import set_variable

    target = kind.pin_source(env_file)
    show = _make_show()
    if persist:
        set_variable(target, kind.pin, str(path))
        show(f"{target}: {kind.pin}={path}")
        return
    pinned = next(iter(kind.pins(env_file)), None)
    if pinned is not None and pinned.resolve() != path.resolve():
        show(
            f"warning: {target} pins {kind.pin}={pinned}: a restart brings that one back; "
            "--persist updates it"
        )
