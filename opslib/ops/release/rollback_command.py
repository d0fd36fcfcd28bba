"""`pillops rollback`: back to the last good model."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from opslib.core.config import load_config
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


def rollback(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")] = False,
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
