"""An operation as the rest of the house knows it: its commands and its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol, cast

import typer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Command = Callable[..., int | None] | typer.Typer
# Told the share of the work that is done, 0 to 1, and what is being done.
Progress = Callable[[float, str], None]


def lazily(name: str) -> Callable[..., Any]:
    """Return the function called `module:name`; its module is loaded when it is first called, so
    that the command line starts without it."""
    return lambda *given: resolve_name(name)(*given)


class OperationRequest:
    """What a person asks an operation for, a frozen dataclass; paths and lists may be given as the
    plain values of a notebook's parameters."""

    def __post_init__(self) -> None:
        for one in fields(cast("DataclassInstance", self)):
            given = getattr(self, one.name)
            if one.type == "Path | None":
                object.__setattr__(self, one.name, Path(given) if given else None)
            elif isinstance(given, list):
                object.__setattr__(self, one.name, tuple(given) or None)


class Change(Protocol):
    """How two records differ: how many rows are better, worse or the same, and a sentence."""

    @property
    def summary(self) -> str:
        """The sentence."""

    def count(self, outcome: Any) -> int:
        """Return how many rows have this outcome."""


@dataclass(frozen=True)
class Records:
    """The records that an operation leaves.

    Args:
        files: how the names of their files begin.
        read: reads such a file, and raises InputError where it is none.
        table: the columns and the rows of text that show a record in a document.
        compare: what changed from one record to the next, beyond its noise.
    """

    files: str
    read: Callable[[Path], Any]
    table: Callable[[Any], tuple[list[str], list[list[str]]]]
    compare: Callable[[Any, Any], Change] | None = None


@dataclass(frozen=True)
class Operation:
    """What there is to know of an operation.

    Args:
        name: what it is called, in documents too.
        commands: its commands by name; a `typer.Typer` is a group of them.
        report_commands: those that belong to `pillops report`.
        records: what it leaves, where documents show it.
    """

    name: str
    commands: Mapping[str, Command]
    report_commands: Mapping[str, Command] = field(default_factory=dict)
    records: Records | None = None
