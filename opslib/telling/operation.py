"""An operation as the rest of the house knows it: its commands and its records."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import wraps
from inspect import Parameter, Signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Protocol, get_type_hints

import typer
from rich.console import Console

from opslib.core.config import Config, load_config
from opslib.core.errors import ParameterError
from opslib.core.records import Record
from opslib.telling.doors import ConfigOption, check_record_path, make_console, say
from opslib.telling.progress import show_progress

JsonOption = Annotated[Path | None, typer.Option(help="Where the record goes.")]
Command = Callable[..., int | None] | typer.Typer
# Told the share of the work that is done, 0 to 1, and what is being done.
Progress = Callable[[float, str], None]
_SIZE = re.compile(r"[1-9][0-9]{0,8}")


def lazily(name: str) -> Callable[..., Any]:
    """Return the function called `module:name`; its module is loaded when it is first called, so
    that the command line starts without it."""
    return lambda *given: resolve_name(name)(*given)


class OperationRequest:
    """What a person asks an operation for, a frozen dataclass; each field says the option that asks
    for it. Paths, lists and `1,2,4` may be given as a notebook's parameters and options are. Raises
    ParameterError: a list holds what is no whole number from 1 up."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            given = getattr(self, name)
            if kind == Path | None:
                object.__setattr__(self, name, Path(given) if given else None)
            elif kind == tuple[int, ...] | None:
                sizes = parse_sizes(name, given) if isinstance(given, str) else given
                object.__setattr__(self, name, tuple(sizes) if sizes else None)


def parse_sizes(option: str, text: str) -> list[int]:
    """Return sizes from `1,2,4`; ParameterError where a part is no whole number from 1 up."""
    parts = [part.strip() for part in text.split(",")]
    if not all(map(_SIZE.fullmatch, parts)):
        raise ParameterError(f"--{option}: got {text!r}; expected whole numbers from 1 up: 1,2,4")
    return [int(part) for part in parts]


def takes_request(
    kind: type[Any],
) -> Callable[[Callable[[Any, Config, Path | None], int]], Callable[..., int]]:
    """Make a command of what is done with a request: it has an option for each of the request's
    fields, `--json` for the record's place and `--config`."""

    def make(act: Callable[[Any, Config, Path | None], int]) -> Callable[..., int]:
        @wraps(act)
        def command(json: Path | None, config: Path | None, **asked: Any) -> int:
            check_record_path(json)
            loaded = load_config(config)
            return act(kind(**asked), loaded, json)

        hints = get_type_hints(kind, include_extras=True)
        options = {one.name: (hints[one.name], one.default) for one in fields(kind)}
        if "batch" in options:
            options["batch"] = (Annotated[str | None, *hints["batch"].__metadata__], None)
        options |= {"json": (JsonOption, None), "config": (ConfigOption, None)}
        signature = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)
            for name, (hint, default) in options.items()
        ]
        command.__signature__ = Signature(signature)  # type: ignore[attr-defined]
        command.__annotations__ = {name: hint for name, (hint, _) in options.items()}
        return command

    return make


def measure(
    what: str,
    run: Callable[..., Record],
    keep: Callable[[Any, Config, Path | None], Path],
    show: Callable[[Console, Any], None],
    request: object,
    config: Config,
    json: Path | None,
    also: Callable[[Any], list[str]] = lambda _record: [],
) -> tuple[Any, Path]:
    """Run an operation, saying what and how far, keep and show its record; return it and where
    it lies. `also`: what else is said of it, before where it lies."""
    notes = make_console(stderr=True)
    say(notes, what)
    with show_progress(notes) as progress:
        record = run(config, request, progress=progress)
    path = keep(record, config, json)
    show(make_console(), record)
    for line in (*also(record), f"record: {path}"):
        say(notes, line)
    return record, path


class Change(Protocol):
    """How a record differs from earlier ones: how many rows are better, worse or the same, that in
    a sentence, and where it comes from."""

    @property
    def summary(self) -> str:
        """The sentence."""

    @property
    def attribution(self) -> str | None:
        """Where a change comes from, where that is known."""

    def count(self, outcome: Any) -> int:
        """Return how many rows have this outcome."""


@dataclass(frozen=True)
class Records:
    """The records that an operation leaves. `files`: how the names of their files begin. `read`:
    reads such a file, and raises InputError where it is none. `table`: the columns and the rows of
    text that show a record in a document. `judge`: what changed against earlier records, given the
    newest first, beyond the noise."""

    files: str
    read: Callable[[Path], Any]
    table: Callable[[Any], tuple[list[str], list[list[str]]]]
    judge: Callable[[Any, list[Any]], Change] | None = None


def records_of(package: str, record: str, files: str, judge: str | None = None) -> Records:
    """Return the records of an operation's folder: its class in `record`, `snapshot` in `columns`,
    and the function `module:name` that judges one, each loaded when it is first needed."""
    return Records(
        files,
        read=lazily(f"{package}.record:{record}.read"),
        table=lazily(f"{package}.columns:snapshot"),
        judge=lazily(f"{package}.{judge}") if judge else None,
    )


@dataclass(frozen=True)
class Operation:
    """What there is to know of an operation. `name`: what it is called, in documents too.
    `commands`: its commands by name; a `typer.Typer` is a group of them. `report_commands`: those
    that belong to `pillops report`. `records`: what it leaves, where documents show it."""

    name: str
    commands: Mapping[str, Command]
    report_commands: Mapping[str, Command] = field(default_factory=dict)
    records: Records | None = None
