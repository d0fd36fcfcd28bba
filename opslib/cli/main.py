"""The `pillops` command: one line for each command, one line for an error, one exit code."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from opslib import __version__
from opslib.cli import report
from opslib.cli.acceptance import acceptance
from opslib.cli.apply import apply
from opslib.cli.bench import bench
from opslib.cli.card import card
from opslib.cli.check import check
from opslib.cli.demo import demo
from opslib.cli.doctor import doctor
from opslib.cli.doors import run_app
from opslib.cli.drill import drill
from opslib.cli.health import health_app, rotate
from opslib.cli.maintain import maintain
from opslib.cli.quantize import promote, quantize
from opslib.cli.release import release_app
from opslib.cli.schedule import schedule_app
from opslib.cli.serve import key_app, reload, rollback, serve
from opslib.cli.sweep import sweep

app = typer.Typer(
    help="Measure, tune, release, swap and watch an image classifier, with evidence.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int:
    """Measure, tune, release, swap and watch an image classifier, with evidence."""
    if version:
        typer.echo(f"pillops {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return 0


app.command()(demo)
app.command()(doctor)
app.command()(bench)
app.command()(sweep)
app.command()(apply)
app.command()(quantize)
app.command()(promote)
app.command()(card)
app.command(cls=report.RunCommand)(report.run)
app.add_typer(report.report_app, name="report")
app.command()(report.snapshot)
app.command()(report.lab)
app.command()(acceptance)
app.command()(serve)
app.command()(reload)
app.command()(rollback)
app.command()(drill)
app.add_typer(key_app, name="key")
app.command()(check)
app.add_typer(health_app, name="health")
app.command()(rotate)
app.command()(maintain)
app.add_typer(release_app, name="release")
app.add_typer(schedule_app, name="schedule")


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    run_app(app)


if __name__ == "__main__":
    main()
