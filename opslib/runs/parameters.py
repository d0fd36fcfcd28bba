"""A notebook's parameters: read from its annotated cell, checked before a kernel starts.

The cell tagged `parameters` holds one literal a line, `name: type = default  # help`. The type is
`int`, `float`, `str`, `bool`, `list[...]` or `tuple[..., ...]` of these, each with `| None` where
null is allowed. When the help's first word is a range `1..600` (either end may be left open) or a
choice `onnx|torch|both`, the value is held to it.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from opslib.core.errors import ParameterError
from opslib.core.secrets import REFERENCE_PREFIX, is_secret_name, resolve_reference

PARAMETERS_TAG = "parameters"
Scalar = Literal["int", "float", "str", "bool"]
_SCALARS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)?\.\.(-?\d+(?:\.\d+)?)?\Z")
_CHOICES = re.compile(r"[\w.+-]+(?:\|[\w.+-]+)+\Z")
_INTEGER = re.compile(r"[+-]?\d+\Z")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a notebook: its type, its own value, its help and its limits."""

    name: str
    scalar: Scalar
    default: Any
    many: bool = False
    optional: bool = False
    help: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def type_text(self) -> str:
        """The type as the notebook writes it."""
        base = f"list[{self.scalar}]" if self.many else self.scalar
        return f"{base} | None" if self.optional else base

    @property
    def limit_text(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        what = _WORDS[self.scalar] + (" or several, separated by commas" if self.many else "")
        ends = ["" if end is None else f"{end:g}" for end in (self.low, self.high)]
        return f"{what} in {ends[0]}..{ends[1]}" if any(ends) else what


def read_parameters(notebook: Any) -> dict[str, ParameterSpec]:
    """Return the parameters that a notebook declares, by name, in its order.

    Raises:
        ParameterError: its parameter cell holds something else than annotated literals, or there
            are two: papermill (2.7) writes the given values behind the first, and the second's
            defaults would silently take their place.
    """
    cells = [c for c in notebook.cells if PARAMETERS_TAG in c.metadata.get("tags", [])]
    if len(cells) > 1:
        raise ParameterError(f"{len(cells)} cells are tagged {PARAMETERS_TAG}; expected one")
    return {spec.name: spec for cell in cells for spec in _read_cell(cell.source)}


def check_parameters(
    given: Mapping[str, Any], specs: Mapping[str, ParameterSpec], folder: Path | None = None
) -> dict[str, Any]:
    """Return the given values converted to the declared types.

    Text is converted as the declared type says, so that `0012345` stays text for a `str`.

    Args:
        given: values by name, as text (from a command line or a file) or already typed.
        folder: where `.env` lies, in which `env:NAME` references are looked up.

    Raises:
        ParameterError: a name is unknown, a value has the wrong type or lies outside its limits,
            or a secret is given by its value.
    """
    return {name: _check(name, value, specs, folder) for name, value in given.items()}


def read_assignments(texts: list[str]) -> dict[str, str]:
    """Return `key=value` texts as a dict; the value is everything after the first `=`.

    Raises:
        ParameterError: a text has no `=`, or a key stands twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ParameterError(f"-p {text}: expected key value or key=value")
        if key.strip() in found:
            raise ParameterError(f"-p {key.strip()}: given twice")
        found[key.strip()] = value
    return found


def read_parameter_file(path: Path) -> dict[str, Any]:
    """Return the parameters of a YAML file, every scalar as the text that stands there.

    Raises:
        ParameterError: the file cannot be read or is no mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise ParameterError(f"{path}: cannot be read as YAML: {first}") from error
    if not isinstance(data, dict):
        raise ParameterError(f"{path}: expected `name: value` lines")
    return data


def _check(name: str, value: Any, specs: Mapping[str, ParameterSpec], folder: Path | None) -> Any:
    if name not in specs:
        close = difflib.get_close_matches(name, specs, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = ", ".join(specs) or "none"
        raise ParameterError(f"parameter {name!r} is unknown; {hint}this notebook has: {known}")
    spec = specs[name]
    if is_secret_name(name) and value is not None:
        resolve_reference(str(value), folder)
    elif isinstance(value, str) and value.startswith(REFERENCE_PREFIX):
        resolve_reference(value, folder)
    if spec.optional and (value is None or value in ("null", "None")):
        return None
    if not spec.many:
        return _check_scalar(spec, value)
    items = _split(value) if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise _refusal(spec, value)
    if not items and spec.default != [] and spec.default != ():
        raise _refusal(spec, value)
    return [_check_scalar(spec, item) for item in items]


def _split(text: str) -> list[Any]:
    if text.strip().startswith("["):
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, list):
            return parsed
    return [part.strip() for part in text.split(",") if part.strip()]


def _check_scalar(spec: ParameterSpec, value: Any) -> Any:
    converted = _from_text(spec, value) if isinstance(value, str) else _from_typed(spec, value)
    if spec.choices and str(converted) not in spec.choices:
        raise _refusal(spec, value)
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        below = spec.low is not None and converted < spec.low
        if below or (spec.high is not None and converted > spec.high):
            raise _refusal(spec, value)
    return converted


def _from_text(spec: ParameterSpec, text: str) -> Any:
    if spec.scalar == "str":
        if not _is_unicode(text):
            shown = _shown(text) if not is_secret_name(spec.name) else "a value"
            raise ParameterError(f"parameter {spec.name}: got {shown}, expected UTF-8 text")
        return text
    stripped = text.strip()
    if spec.scalar == "bool" and stripped.lower() in _BOOLEANS:
        return _BOOLEANS[stripped.lower()]
    if spec.scalar == "int" and _INTEGER.match(stripped):
        try:
            return int(stripped)
        except ValueError as error:  # Python converts 4,300 digits at most
            raise _refusal(spec, text) from error
    if spec.scalar == "float":
        try:
            number = float(stripped)
        except ValueError as error:
            raise _refusal(spec, text) from error
        if math.isfinite(number):
            return number
    raise _refusal(spec, text)


def _from_typed(spec: ParameterSpec, value: Any) -> Any:
    if spec.scalar == "float" and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise _refusal(spec, value) from error
    matches = isinstance(value, _SCALARS[spec.scalar])
    if not matches or (spec.scalar == "int" and isinstance(value, bool)):
        raise _refusal(spec, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _refusal(spec, value)
    return value


def _refusal(spec: ParameterSpec, value: Any) -> ParameterError:
    shown = "a value" if is_secret_name(spec.name) else _shown(value)
    return ParameterError(
        f"parameter {spec.name}: got {shown}, expected {spec.limit_text} ({spec.type_text})"
    )


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"


def _is_unicode(text: str) -> bool:
    """Whether text has no lone surrogate: what bytes of a command line that are no UTF-8 become."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _read_cell(source: str) -> list[ParameterSpec]:
    try:
        statements = ast.parse(source).body
        comments = _comments(source)
        specs = []
        for statement in statements:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue
            specs.append(_read_statement(statement, comments.get(statement.end_lineno or 0, "")))
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise ParameterError(f"the parameter cell is not Python: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise ParameterError("the parameter cell is nested too deeply") from error
    return specs


def _read_statement(statement: ast.stmt, comment: str) -> ParameterSpec:
    target: ast.expr | None = None
    if isinstance(statement, ast.AnnAssign):
        target = statement.target
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    value = getattr(statement, "value", None)
    if not isinstance(target, ast.Name) or value is None:
        line = ast.unparse(statement).splitlines()[0]
        raise ParameterError(f"the parameter cell holds {line!r}; expected name: type = literal")
    try:
        default = ast.literal_eval(value)
    except (ValueError, TypeError) as error:
        raise ParameterError(f"parameter {target.id}: its default is no literal") from error
    annotation = getattr(statement, "annotation", None)
    scalar, many, optional = _read_type(target.id, annotation, default)
    low, high, choices = _read_limits(comment)
    return ParameterSpec(
        target.id, scalar, default, many, optional or default is None, comment, low, high, choices
    )


def _read_type(name: str, annotation: ast.expr | None, default: Any) -> tuple[Scalar, bool, bool]:
    text = ast.unparse(annotation) if annotation is not None else _guess_type(default)
    optional = bool(re.search(r"\|\s*None\Z", text))
    text = re.sub(r"\s*\|\s*None\Z", "", text)
    many = re.fullmatch(r"(?:list|tuple)\[(\w+)(?:, \.\.\.)?\]", text)
    scalar = many[1] if many else text
    if scalar not in _SCALARS:
        known = ", ".join(_SCALARS)
        raise ParameterError(
            f"parameter {name}: type {text!r} is not known; expected {known} or a list of one"
        )
    return scalar, many is not None, optional  # type: ignore[return-value]


def _guess_type(default: Any) -> str:
    if isinstance(default, list | tuple):
        return f"list[{type(default[0]).__name__}]" if default else "list[str]"
    return "str | None" if default is None else type(default).__name__


def _read_limits(comment: str) -> tuple[float | None, float | None, tuple[str, ...]]:
    word = comment.split()[0].rstrip(":,;") if comment.split() else ""
    span = _RANGE.match(word)
    if span and (span[1] or span[2]):
        return (
            float(span[1]) if span[1] else None,
            float(span[2]) if span[2] else None,
            (),
        )
    return None, None, tuple(word.split("|")) if _CHOICES.match(word) else ()


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }
