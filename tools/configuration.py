"""Write the tables of keys in docs/CONFIGURATION.md: types from the code, the rest from the file.

    python tools/configuration.py [--check]

A key's default and its meaning are what stands beside it in config.yaml, so that there is one place
to edit; those of a section that is there once for each name stand in a comment. Exit code 2 when a
key has no comment there, 3 when `--check` finds the table out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from opslib.core.config import Config

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "CONFIGURATION.md"
NAME, NAMED = "NAME", "#  "
BEGIN, END = "<!-- keys -->\n", "<!-- /keys -->"
HEAD = ["| key | type | default | meaning |", "|---|---|---|---|"]
_LINE = re.compile(r"( *)(\w+):(?: +(?!#)(.*?))?(?: +# *(.*))?")
_WORDS = {Path: "path", str: "text", bool: "`true` or `false`", int: "whole number"} | {
    float: "number",
    dict: "options by name",
}
_PLURALS = ("whole number", "number", "path", "text")
_MARKUP = re.compile(r"([|<*])")


@dataclass(frozen=True)
class Written:
    """What config.yaml has beside a key: its value as written, and its comment."""

    value: str
    comment: str


def read_written(text: str) -> dict[str, Written]:
    """Return what stands beside each dotted key of a configuration's text."""
    found: dict[str, Written] = {}
    path: list[str] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if match and not line.lstrip().startswith("#"):
            path = [*path[: len(match[1]) // 2], match[2]]
            found[".".join(path)] = Written(match[3] or "", match[4] or "")
    return found


def read_named(text: str) -> dict[str, Written]:
    """Return what stands beside each key of a section called NAME, which is a comment."""
    lines = [line.removeprefix(NAMED) for line in text.splitlines() if line.startswith(NAMED)]
    return read_written("\n".join(lines))


def find_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key below `model` with its dotted name; sections are gone into."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from find_keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def describe_type(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Return a type in words, with its limits."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe_type(parts[0], (*parts[1:], *metadata))
    if origin in (Union, types.UnionType):
        words = [describe_type(one, metadata) for one in parts if one is not type(None)]
        return " or ".join([*words, "`null`"] if type(None) in parts else words)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in parts)
    if origin is tuple:
        words = describe_type(parts[0])
        plural = next((one for one in _PLURALS if words.startswith(one)), "")
        return f"list of {words.replace(plural, f'{plural}s', 1) if plural else words}"
    return (_WORDS.get(origin or annotation, "text") + " " + describe_limits(metadata)).strip()


def describe_limits(metadata: tuple[Any, ...]) -> str:
    """Return the limits among a type's annotations, such as `> 0` or `1 to 65535`."""
    limits: dict[str, Any] = {}
    for one in metadata:
        for inner in getattr(one, "metadata", None) or [one]:
            for kind, sign in (("Ge", "≥"), ("Gt", ">"), ("Le", "≤"), ("Lt", "<")):
                if isinstance(inner, getattr(annotated_types, kind)):
                    limits[sign] = getattr(inner, kind.lower())
    if limits.keys() == {"≥", "≤"}:
        return f"{limits['≥']} to {limits['≤']}"
    return ", ".join(f"{sign} {value}" for sign, value in limits.items())


def make_tables(text: str) -> str:
    """Return the document's tables, one a section, for the configuration `text`.

    Raises:
        ValueError: a key is not in the text or has no comment there; all are named.
    """
    problems, lines = [], list[str]()
    for section, field in Config.model_fields.items():
        model, begin, written = field.annotation, section, read_written(text)
        if get_origin(model) is Literal:  # a key in no section
            beside = written.get(section, Written("", ""))
            problems += [] if beside.comment else [section]
            cells = (f"`{section}`", describe_type(model), f"`{beside.value}`", beside.comment)
            lines += ["### At the top", "", *HEAD, "| " + " | ".join(cells) + " |", ""]
            continue
        if get_origin(model) is dict:  # sections by name
            model, begin, written = get_args(model)[1], NAME, read_named(text)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        lines += [f"### `{section}`", "", f"{(model.__doc__ or '').strip()}", ""]
        lines += HEAD
        for key, info in find_keys(model, f"{begin}."):
            beside = written.get(key)
            if beside is None or not beside.comment:
                problems.append(key)
                continue
            kind = describe_type(info.annotation, tuple(info.metadata))
            value = beside.value or _inner_values(written, key)
            cells = (f"`{key.partition('.')[2]}`", kind, f"`{value}`", _escape(beside.comment))
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    if problems:
        raise ValueError(f"config.yaml: no comment beside {', '.join(problems)}")
    return "\n".join(lines)


def _escape(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)


def _inner_values(written: dict[str, Written], key: str) -> str:
    inner = {name: one.value for name, one in written.items() if name.startswith(f"{key}.")}
    return ", ".join(f"{name.rpartition('.')[2]}: {value}" for name, value in inner.items())


def main() -> int:
    """Write the tables, or say whether they are current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is current")
    check = parser.parse_args().check
    old = DOCUMENT.read_text()
    try:
        tables = make_tables((ROOT / "config.yaml").read_text())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    head, _, rest = old.partition(BEGIN)
    new = f"{head}{BEGIN}{tables}{END}{rest.partition(END)[2]}"
    if check:
        return 3 if new != old else 0
    DOCUMENT.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
