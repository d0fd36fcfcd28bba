"""`pillops run`, `report`, `snapshot` and `lab`: notebooks in, reports out."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperCommand

from opslib.core.config import load_config
from opslib.core.errors import ExitCode, InputError
from opslib.core.language import tr
from opslib.core.store_address import is_address
from opslib.runs.desk_command import adopt_from, publish, pull
from opslib.telling.doors import (
    ConfigOption,
    RootOption,
    describe_experiment,
    find_root,
    make_console,
    plain_cells,
    say,
    say_verdict,
)
from opslib.telling.progress import show_steps


class RunCommand(TyperCommand):
    """Takes a parameter as papermill does, `-p key value`, beside `-p key=value`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse after joining each `-p key value` into `-p key=value`."""
        joined: list[str] = []
        for word in args:
            if joined[-2:-1] in (["-p"], ["--parameter"]) and "=" not in joined[-1]:
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


def make_report_app() -> typer.Typer:
    """Return the group of commands about reports; operations add theirs to it."""
    app = typer.Typer(help="Compare, check, list and adopt reports.", no_args_is_help=False)
    app.command()(index)
    app.command()(adopt)
    app.command()(publish)
    app.command()(pull)
    return app


def run(
    notebook: Annotated[str, typer.Argument(help="Name (bench, 01_bench) or path.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="key value or key=value, repeatable."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="YAML of parameters.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the run.", min=0.1)] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the lock.", min=0)] = 0.0,
    out: Annotated[Path | None, typer.Option(help="The report's folder itself.")] = None,
    kernel: Annotated[str | None, typer.Option(help="Another Jupyter kernel.")] = None,
    config: ConfigOption = None,
) -> int:
    """Run a notebook and leave a dated report; the exit code is the report's verdict."""
    from opslib.runs.parameters import read_assignments, read_parameter_file
    from opslib.runs.publish import publish_new
    from opslib.runs.runner import run_notebook
    from opslib.telling.figures import short_number

    given = {**(read_parameter_file(file) if file else {}), **read_assignments(parameter or [])}
    loaded = load_config(config)
    notes = make_console(stderr=True)
    say(notes, f"{notebook} on {describe_experiment(loaded)}")
    with show_steps(notes) as progress:
        record = run_notebook(
            notebook,
            parameters=given,
            config=loaded,
            timeout_s=timeout,
            wait_s=wait,
            out=out,
            kernel=kernel,
            progress=progress,
        )
    console = make_console()
    table = Table(box=None, pad_edge=False, show_header=False)
    for figure in record.key_figures:
        value = short_number(figure.value) if isinstance(figure.value, float) else figure.value
        table.add_row(*plain_cells((figure.label or figure.name, f"{value} {figure.unit or ''}")))
    if table.rows:
        console.print(table)
    say_verdict(console, record.tone, tr(record.sentence), word=record.word)
    if record.change is not None:
        say(console, tr("since the last run: {change}", change=record.change.summary))
        if record.change.attribution:
            say(console, record.change.attribution)
    folder = out.absolute() if out else loaded.report_dir / report_folder(record.id)
    say(console, f"report: {folder / record.report_name}")
    publish_new(loaded, partial(say, notes))
    return record.exit_code


def index(root: RootOption = None, config: ConfigOption = None) -> int:
    """Write the page that lists every report, newest first, and publish what desk.url lacks."""
    from opslib.runs.index import build_index
    from opslib.runs.publish import publish_new

    console = make_console()
    say(console, str(build_index(find_root(root, config), config)))
    whole = root is not None or publish_new(load_config(config), partial(say, console))
    return int(ExitCode.PASS if whole else ExitCode.USAGE)


def adopt(
    notebook: Annotated[
        str,
        typer.Argument(help="Executed notebook in the report folder, or its desk.url address."),
    ],
    root: RootOption = None,
    config: ConfigOption = None,
) -> int:
    """Give a notebook that plain papermill wrote its HTML page and record."""
    from opslib.runs.adopt import adopt_notebook
    from opslib.runs.index import build_index
    from opslib.runs.redaction import known_secrets

    if is_address(notebook):
        return adopt_from(notebook, config)
    folder, path = find_root(root, config), Path(notebook).absolute()
    if not path.is_relative_to(folder):
        raise InputError(f"{notebook}: lies outside the report folder {folder}")
    record = adopt_notebook(path, folder, known_secrets(config))
    build_index(folder, config)
    console = make_console()
    say_verdict(console, record.tone, tr(record.sentence), word=record.word)
    say(console, f"report: {path.with_name(record.report_name)}")
    return record.exit_code


def snapshot(
    check: Annotated[bool, typer.Option(help="Only say whether the tables are current.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would be done.")] = False,
    document: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Default: docs/PERFORMANCE.md and docs/ko/PERFORMANCE.md."
        ),
    ] = None,
    config: ConfigOption = None,
) -> int:
    """Rewrite the measured tables of both PERFORMANCE.md, English and Korean, from the newest
    successful runs."""
    from opslib.core.plans import carry_out
    from opslib.runs.snapshot import plan_snapshot

    loaded = load_config(config)
    docs = loaded.root / "docs"
    targets = document or [docs / "PERFORMANCE.md", docs / "ko" / "PERFORMANCE.md"]
    paths = [Path(one) for one in dict.fromkeys(map(os.path.realpath, targets))]
    plan = plan_snapshot(paths, loaded.report_dir, others=document is not None)
    show = partial(say, make_console())
    if check:
        for line in plan.lines():
            show(line)
        return int(ExitCode.GATE_FAILED if plan.actions else ExitCode.PASS)
    outcome = carry_out(plan, dry_run=dry_run, show=show)
    for skipped in outcome.skipped:
        show(f"skipped: {skipped.action.describe()}: {skipped.reason}")
    return int(ExitCode.SKIPPED if outcome.skipped else ExitCode.PASS)


def lab(
    port: Annotated[int, typer.Option(help="Port of the server.", min=0, max=65535)] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    config: ConfigOption = None,
) -> int:
    """Open JupyterLab on the landing notebook."""
    from opslib.runs.lab import open_lab

    open_lab(load_config(config), port=port, browser=browser)


def report_folder(run_id: str) -> str:
    """Return the folder of a run's id, relative to the report folder."""
    day, _, rest = run_id.partition("-")
    return f"{day[:4]}-{day[4:6]}-{day[6:]}/{rest}"
