"""`pillops health check` and `health watch`: small jobs for cron."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opslib.core.config import load_config
from opslib.telling.doors import ConfigOption, make_console, say, say_if_possible

health_app = typer.Typer(help="Whether app and tunnel answer.", no_args_is_help=True)


@health_app.command()
def check(
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the record there too.")
    ] = None,
    config: ConfigOption = None,
) -> int:
    """Ask all watched addresses once and change nothing; 3 where one failed or is degraded."""
    from opslib.telling.doors import check_record_path
    from opslib.upkeep.health import check_health

    check_record_path(json_path)
    loaded = load_config(config)
    console = make_console()
    record = check_health(loaded)
    for name, result in record.checks:
        say(console, f"{name} {result.url}: {result.describe()}")
    if record.external is None:
        say(console, "external: not watched (health.external_url)")
    if record.layer is not None:
        say(console, f"failed layer: {record.layer}")
    if json_path is not None:
        record.write(json_path)
    return record.exit_code


@health_app.command()
def watch(config: ConfigOption = None) -> int:
    """Make one run of the watch, as each minute from cron: ask, count, restart, tell.

    Prints its line on stdout, and what a person must read on stderr; 3 while an incident lasts or
    the app is degraded.
    """
    from opslib.upkeep.health import watch_health

    loaded = load_config(config)
    alerts = make_console(stderr=True)
    record = watch_health(loaded, lambda text: say_if_possible(alerts, text))
    say_if_possible(make_console(), record.describe())
    return record.exit_code
