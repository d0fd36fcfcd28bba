"""What every command and script shares: one line for an error, its exit code, one console."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text
from typer.exceptions import Abort, TyperException

from opslib.core.accounts import ensure_home
from opslib.core.config import Config, load_config
from opslib.core.errors import (
    ConfigError,
    ExitCode,
    InputError,
    ModelError,
    OpsError,
    ParameterError,
    StorageError,
    TerminatedError,
    UnavailableError,
)
from opslib.core.files import ensure_writable
from opslib.core.foreign import describe_their_variables
from opslib.core.formatting import spell_out
from opslib.core.language import mark, tr
from opslib.core.secrets import live_secrets, mask
from opslib.inference.causes import ModelCheckError, find_hint, find_hint_by_word

if TYPE_CHECKING:
    from opslib.inference.facts import InputFacts

ConfigOption = Annotated[Path | None, typer.Option(help="Configuration file.")]
RootOption = Annotated[Path | None, typer.Option(help="Report folder; default: the config's.")]
MAX_ERROR_CHARACTERS = 600
INTERRUPTED = 130
TERMINATED = "terminated by SIGTERM"
# Options of the serving repository's scripts that mean nothing here, and what is meant.
_SEES_ALL = "every step is shown; leave it away"
_KEY = "a key on the command line is seen by everybody on this host; put it into .env as API_KEY"
_EXPERIMENT = "name the experiment by PILLSNAP_EXP_DIR=DIR before the command, or by --config"
_ALWAYS = "every switch is confirmed by /version; leave it away"
THEIR_OPTIONS = {
    "-e": _EXPERIMENT,
    "--exp-dir": _EXPERIMENT,
    "-k": _KEY,
    "--key": _KEY,
    "-v": _SEES_ALL,
    "--verbose": _SEES_ALL,
    "--no-verify": _ALWAYS,
}
VERDICT_STYLES = {
    mark("pass"): "green bold",
    mark("fail"): "red bold",
    mark("inconclusive"): "yellow bold",
}


def make_console(*, stderr: bool = False) -> Console:
    """Return the console of a command: width of the terminal, 110 columns where there is none."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 110
    return Console(stderr=stderr, width=width, highlight=False, emoji=False)


def say(console: Console, text: str) -> None:
    """Print a line as it is: what looks like markup in a path or a label is text."""
    console.print(Text(_printable(text)), soft_wrap=True)


def say_if_possible(console: Console, text: str) -> None:
    """Print a line of a job that runs unattended: where its log is on a full disk, or whoever
    reads it is gone, the line is lost and the job goes on."""
    try:
        say(console, text)
    except OSError:
        _drop_unwritten(console.file)


def _drop_unwritten(stream: IO[str]) -> None:
    """Empty what a stream holds back; the next line is tried where it belongs again."""
    kept, nowhere = os.dup(stream.fileno()), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    stream.flush()
    os.dup2(kept, stream.fileno())
    os.close(nowhere)
    os.close(kept)


def say_verdict(console: Console, verdict: str, finding: str, *, word: str | None = None) -> None:
    """Print a verdict in its colour, or the word that stands for it, and the finding as it is."""
    style = VERDICT_STYLES.get(verdict, "bold")
    line = Text.assemble((tr(word or verdict), style), f": {_printable(finding)}")
    console.print(line, soft_wrap=True)


def plain_cells(cells: Iterable[str]) -> list[Text]:
    """Return the cells of a table's row so that nothing in them is taken for markup."""
    return [Text(_printable(cell)) for cell in cells]


def run_door(action: Callable[[], int | None]) -> NoReturn:
    """Run a command's `action` and end the process with its exit code. An error made on purpose
    prints one line on stderr, secrets masked; SIGTERM becomes 143."""
    terminated = False

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        raise TerminatedError(TERMINATED)

    signal.signal(signal.SIGTERM, terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # of a terminal that has no Korean, or no ellipsis
    theirs = describe_their_variables(os.environ)
    if theirs is not None:
        _print_line(f"note: {theirs}")
    try:
        ensure_home()
        code = int(action() or 0)
        if code == INTERRUPTED and terminated:  # typer makes one number of all interrupts
            raise TerminatedError(TERMINATED)
        sys.stdout.flush()
    except OpsError as error:
        code = print_error(error)
    except TerminatedError as error:
        _print_error(str(error))
        code = int(error.exit_code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = int(ExitCode.PASS)
    except OSError as error:
        code = print_error(StorageError(f"{error.strerror or error}: {error.filename or ''}"))
    sys.exit(code)


def print_error(error: OpsError, folder: Path | None = None) -> int:
    """Print the error as one line on stderr, a long one without its middle, and return its exit
    code."""
    hint = _find_hint(error)
    text = mask(" ".join(f"{error}{hint}".split()), live_secrets(folder))
    if len(text) > MAX_ERROR_CHARACTERS:
        half = (MAX_ERROR_CHARACTERS - 3) // 2
        text = f"{text[:half]} … {text[-half:]}"
    _print_error(_printable(text))
    return int(error.exit_code)


def _find_hint(error: OpsError) -> str:
    """What to do about a model that was refused, or a release of one, as `; ...`."""
    if "(hint: " in str(error):
        return ""
    for one in (error, error.__cause__):
        if isinstance(one, ModelCheckError):
            return f"; {find_hint(one.stage, str(one))}"
    known = any(isinstance(one, ModelError | UnavailableError) for one in (error, error.__cause__))
    hint = find_hint_by_word(str(error)) if known else None
    return f"; {hint}" if hint else ""


def _print_error(text: str) -> None:
    _print_line(f"error: {text}")


def _print_line(text: str) -> None:
    """Print a line on stderr; a log on a full disk that does not take it changes no exit code."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        _drop_unwritten(sys.stderr)


def check_record_path(path: Path | None) -> None:
    """Refuse a place for a record before anything is measured. Raises ParameterError: it is a
    folder; StorageError: its folder cannot be written."""
    if path is None:
        return
    if path.is_dir():
        raise ParameterError(f"--json {path}: is a folder; expected a file")
    ensure_writable(path.absolute().parent)


def describe_experiment(config: Config) -> str:
    """Return which experiment a command touches, as one line."""
    kind = "the embedded demo experiment" if config.is_demo else "experiment"
    return f"{kind} at {config.exp_dir}"


def _printable(text: str) -> str:
    """The text with lone surrogates (bytes of a path that are no UTF-8) spelt out, and without
    the passwords of addresses in it."""
    return spell_out(mask(text))


def run_command(function: Callable[..., int | None]) -> NoReturn:
    """Run one function as a whole program; see `run_app`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    run_app(app)


def run_app(app: typer.Typer) -> NoReturn:
    """Run a typer application as the whole program; a wrong option ends it with 2."""
    run_door(lambda: call_app(app))


def call_app(app: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run one command line (the process's own by default) and return its exit code. Raises
    ParameterError: an option or argument is unknown or malformed."""
    try:
        answer = app(arguments, standalone_mode=False)
    except Abort as error:
        raise KeyboardInterrupt from error
    except TyperException as error:
        ours = THEIR_OPTIONS.get(getattr(error, "option_name", ""))
        hint = f"; {ours}" if ours else ""
        raise ParameterError(f"{error.format_message()} (see --help){hint}") from error
    return int(answer or 0)


def say_inputs(console: Console, inputs: InputFacts) -> None:
    """Print how many images of each kind were measured, and those skipped, one a line."""
    for note in inputs.count_note():
        say(console, note)
    for skipped in inputs.skipped:
        say(console, f"skipped {skipped}")


def find_root(root: Path | None, config: Path | None) -> Path:
    """Return the report folder that `--root` or the configuration means. Raises InputError: there
    is none."""
    if root is None:
        folder = load_config(config).report_dir
    else:
        folder = root.absolute()
        with suppress(ConfigError):  # for its language, where there is one
            load_config(config)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such report folder; `pillops run` makes one")
    return folder
