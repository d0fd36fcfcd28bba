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
from typer.exceptions import TyperException

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
    """Run one function as a whole program: its options parsed by typer, errors as in `run_door`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    run_app(app)


def run_app(app: typer.Typer) -> NoReturn:
    """Run a typer application; wrong options end like any other wrong input, with 2."""

    def act() -> int | None:
        try:
            answer = app(standalone_mode=False)
        except TyperException as error:
            raise ParameterError(error.format_message()) from error
        return answer if isinstance(answer, int) else 0

    run_door(act)
