"""What every command and script shares: one line for an error, its exit code, one console."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer
from rich.console import Console
from typer.exceptions import Abort, TyperException

from opslib.core.config import Config
from opslib.core.errors import ExitCode, OpsError, ParameterError, StorageError, TerminatedError
from opslib.core.secrets import live_secrets, mask


def make_console(*, stderr: bool = False) -> Console:
    """Return the console of a command: width of the terminal, 110 columns where there is none."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 110
    return Console(stderr=stderr, width=width, highlight=False)


def run_door(action: Callable[[], int | None]) -> NoReturn:
    """Run a command's `action` and end the process with its exit code.

    An error made on purpose prints one line on stderr, secrets masked; SIGTERM becomes 143.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = int(action() or 0)
        sys.stdout.flush()
    except OpsError as error:
        code = print_error(error)
    except TerminatedError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        code = int(error.exit_code)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = int(ExitCode.PASS)
    except OSError as error:
        code = print_error(StorageError(f"{error.strerror or error}: {error.filename or ''}"))
    sys.exit(code)


def print_error(error: OpsError, folder: Path | None = None) -> int:
    """Print the error as one line on stderr and return its exit code."""
    text = " ".join(str(error).split())
    print(f"error: {mask(text, live_secrets(folder))}", file=sys.stderr)  # noqa: T201
    return int(error.exit_code)


def describe_experiment(config: Config) -> str:
    """Return which experiment a command touches, as one line."""
    kind = "the embedded demo experiment" if config.is_demo else "experiment"
    return f"{kind} at {config.exp_dir}"


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise TerminatedError("terminated by SIGTERM")


def run_command(function: Callable[..., int | None]) -> NoReturn:
    """Run one function as a whole program; see `run_app`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    run_app(app)


def run_app(app: typer.Typer) -> NoReturn:
    """Run a typer application as the whole program; a wrong option ends it with 2."""
    run_door(lambda: call_app(app))


def call_app(app: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run one command line (the process's own by default) and return its exit code.

    Raises:
        ParameterError: an option or argument is unknown or malformed.
    """
    try:
        answer = app(arguments, standalone_mode=False)
    except Abort as error:
        raise KeyboardInterrupt from error
    except TyperException as error:
        raise ParameterError(f"{error.format_message()} (see --help)") from error
    return int(answer or 0)
