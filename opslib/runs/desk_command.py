"""`pillops report publish` and `pull`: the runs of several hosts at one desk."""

from functools import partial
from typing import Annotated

import typer

from opslib.core.config import load_config
from opslib.core.errors import ExitCode, InputError
from opslib.core.formatting import plural
from opslib.core.store_address import is_address
from opslib.telling.doors import ConfigOption, make_console, say

RunsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids or their endings; default: all.")
]
DryRunOption = Annotated[bool, typer.Option(help="Show what would be done.")]


def publish(
    runs: RunsArgument = None, dry_run: DryRunOption = False, config: ConfigOption = None
) -> int:
    """Put the runs that the common desk lacks on it, and list those of all hosts there."""
    from opslib.runs.desk import build_desk_index, carry_out_runs, open_desk, read_runs
    from opslib.runs.desk_adopt import adopt_at_desk, find_plain
    from opslib.runs.index import build_index
    from opslib.runs.publish import plan_publish
    from opslib.runs.redaction import known_secrets

    loaded = load_config(config)
    desk, show = open_desk(loaded), partial(say, make_console())
    there, secrets = read_runs(desk), known_secrets(loaded.source)
    if desk.root.is_dir() and not dry_run:
        build_index(desk.root, loaded.source)  # which adopts what plain papermill wrote here
    plan, refused = plan_publish(desk, there.values(), runs or ())
    plain = [] if runs else find_plain(desk, there)
    for line in plan.lines():
        show(line)
    for name in plain:
        show(f"  adopt {name}: plain papermill wrote it there")
    for line in refused:
        show(f"not published: {line}")
    if dry_run:
        show("dry run: nothing was changed")
        return int(ExitCode.PASS)
    skipped = len(refused) + carry_out_runs(plan, show)
    for name in plain:
        try:
            adopt_at_desk(desk, name, there, secrets)
        except InputError as error:
            skipped += 1
            show(f"not adopted: {error}")
    there = build_desk_index(desk)
    hosts = {run.host for run in there.values()}
    show(f"{plural(len(there), 'run')} of {plural(len(hosts), 'host')}: {desk.page}")
    return int(ExitCode.SKIPPED if skipped else ExitCode.PASS)


def pull(
    runs: RunsArgument = None, dry_run: DryRunOption = False, config: ConfigOption = None
) -> int:
    """Bring the runs of other hosts from the common desk into the report folder."""
    from opslib.runs.desk import carry_out_runs, open_desk, read_runs
    from opslib.runs.index import build_index
    from opslib.runs.pull import plan_pull

    loaded = load_config(config)
    desk, show = open_desk(loaded), partial(say, make_console())
    plan, refused = plan_pull(desk, read_runs(desk).values(), runs or ())
    for line in plan.lines():
        show(line)
    for line in refused:
        show(f"not pulled: {line}")
    if dry_run:
        show("dry run: nothing was changed")
        return int(ExitCode.PASS)
    skipped = len(refused)
    try:
        skipped += carry_out_runs(plan, show)
    finally:
        if desk.root.is_dir():
            show(str(build_index(desk.root, loaded.source)))
    return int(ExitCode.SKIPPED if skipped else ExitCode.PASS)


def adopt_from(address: str, config: ConfigOption = None) -> int:
    """Adopt the notebook at an address of the common desk; return the exit code of its run. Raises
    `InputError` where it lies elsewhere."""
    from opslib.runs.desk import build_desk_index, open_desk, read_runs
    from opslib.runs.desk_adopt import adopt_at_desk
    from opslib.runs.redaction import known_secrets

    loaded = load_config(config)
    desk = open_desk(loaded)
    name = address.removeprefix(f"{desk.store.url}/")
    if is_address(name):
        raise InputError(f"{address}: lies outside the common desk {desk.store.url}")
    record = adopt_at_desk(desk, name, read_runs(desk), known_secrets(loaded.source))
    build_desk_index(desk)
    show = partial(say, make_console())
    show(f"{record.word}: {record.sentence}")
    show(f"report: {address.rpartition('/')[0]}/{record.report_name}")
    return record.exit_code
