"""What `pillops reload` and `pillops rollback` share: their options, clients and the pin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import ConfigError
from opslib.core.kinds import Kind
from opslib.telling.doors import make_console, say

if TYPE_CHECKING:
    from opslib.serving.client import LiveVersion, ServiceClient
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
    float | None, typer.Option("--timeout", "-t", help="Seconds to wait for a reload.")
]


def make_show() -> Callable[[str], None]:
    """Return what prints a line of a switch."""
    console = make_console()
    return lambda line: say(console, line)


def open_clients(
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


def switch(
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

    show = make_show()
    model = Path(path)

    def check_here(before: LiveVersion | None) -> str | None:
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
    if pinned is not None and pinned.resolve() != path.resolve():
        show(
            f"warning: {target} pins {kind.pin}={pinned}: a restart brings that one back; "
            "--persist updates it"
        )
