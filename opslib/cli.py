"""The `pillops` command: one line for each command, one line for an error, one exit code."""

from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from opslib import __version__
from opslib.demo.command import demo
from opslib.ops import OPERATIONS
from opslib.ops.acceptance.command import acceptance
from opslib.runs import command as report
from opslib.serving.command import key_app, reload, serve
from opslib.telling.doors import run_app
from opslib.telling.operation import Command
from opslib.upkeep.maintain_command import health_app, maintain, rotate
from opslib.upkeep.schedule_command import schedule_app

OWN: dict[str, Command] = {
    "demo": demo,
    "acceptance": acceptance,
    "snapshot": report.snapshot,
    "lab": report.lab,
    "serve": serve,
    "reload": reload,
    "key": key_app,
    "health": health_app,
    "rotate": rotate,
    "maintain": maintain,
    "schedule": schedule_app,
}


def make_app() -> typer.Typer:
    """Return the command line, with the commands of every registered operation."""
    app = typer.Typer(
        help="Measure, tune, release, swap and watch an image classifier, with evidence.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(root)
    app.command(cls=report.RunCommand)(report.run)
    report_app = report.make_report_app()
    for operation in OPERATIONS.values():
        _add(report_app, operation.report_commands)
        _add(app, operation.commands)
    app.add_typer(report_app, name="report")
    _add(app, OWN)
    return app


def _add(app: typer.Typer, commands: Mapping[str, Command]) -> None:
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)


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


app = make_app()


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    run_app(app)


if __name__ == "__main__":
    main()
