"""A notebook's parameters: read from its annotated cell, checked before a kernel starts.

The cell tagged `parameters` holds one literal a line, `name: type = default  # help`. The type is
`int`, `float`, `str`, `bool`, `list[...]` or `tuple[..., ...]` of these, each with `| None` where
null is allowed. When the help's first word is a range `1..600` (either end may be left open) or a
choice `onnx|torch|both`, the value is held to it.
"""

import ast
import difflib
import io
import re
import tokenize
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic_core import from_json

from opslib.core.errors import ParameterError
from opslib.core.secrets import REFERENCE_PREFIX, is_secret_name, resolve_reference

PARAMETERS_TAG = "parameters"
_SCALARS: dict[str, tuple[Any, str]] = {
    "int": (int, "a whole number"),
    "float": (FiniteFloat, "a number"),
    "str": (str, "text"),
    "bool": (bool, "true or false"),
}
_TYPE = re.compile(r"(?:(list|tuple)\[(\w+)(?:, \.\.\.)?\]|(\w+))( \| None)?\Z")
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)?\.\.(-?\d+(?:\.\d+)?)?\Z")
_CHOICES = re.compile(r"[\w.+-]+(?:\|[\w.+-]+)+\Z")


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a notebook: its type, its own value, its help and its limits."""

    name: str
    scalar: str
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
        several = " or several, separated by commas" if self.many else ""
        what = _SCALARS[self.scalar][1] + several
        ends = ["" if end is None else f"{end:g}" for end in (self.low, self.high)]
        return f"{what} in {ends[0]}..{ends[1]}" if any(ends) else what

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        kind: Any = Annotated[_SCALARS[self.scalar][0], AfterValidator(self._check_word)]
        if self.scalar in ("int", "float"):
            kind = Annotated[kind, Field(ge=self.low, le=self.high)]
        return TypeAdapter(kind)

    def _check_word(self, value: Any) -> Any:
        if isinstance(value, str):
            value.encode()  # bytes of a command line that are no UTF-8 are no text
        if self.choices and str(value) not in self.choices:
            raise ValueError
        return value

    def convert(self, value: Any) -> Any:
        """Return one value as the declared type: text is read, all else must have the type.

        Raises:
            ParameterError: it cannot be read, has another type or lies outside the limits.
        """
        try:
            if not isinstance(value, str):
                return self._adapter.validate_python(value, strict=True)
            return self._adapter.validate_strings(value if self.scalar == "str" else value.strip())
        except ValidationError as error:
            raise self.refusal(value) from error

    def refusal(self, value: Any) -> ParameterError:
        """Return the error for a value, which is shown unless the parameter is a secret."""
        try:
            shown = "a value" if is_secret_name(self.name) else repr(value)
        except (ValueError, RecursionError):
            shown = f"a {type(value).__name__} too large to show"
        return ParameterError(
            f"parameter {self.name}: got {shown}, expected {self.limit_text} ({self.type_text})"
        )


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
    for name in given:
        if name not in specs:
            close = difflib.get_close_matches(name, specs, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join(specs) or "none"
            raise ParameterError(f"parameter {name!r} is unknown; {hint}this notebook has: {known}")
    return {name: _check(specs[name], value, folder) for name, value in given.items()}


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


def _check(spec: ParameterSpec, value: Any, folder: Path | None) -> Any:
    by_reference = isinstance(value, str) and value.startswith(REFERENCE_PREFIX)
    if by_reference or (value is not None and is_secret_name(spec.name)):
        resolve_reference(str(value), folder)
    if spec.optional and value in (None, "null", "None"):
        return None
    if not spec.many:
        return spec.convert(value)
    items = _split(value) if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or (not items and spec.default not in ([], ())):
        raise spec.refusal(value)
    return [spec.convert(item) for item in items]


def _split(text: str) -> list[Any]:
    if text.strip().startswith("["):
        with suppress(ValueError):
            return list(from_json(text))
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_cell(source: str) -> list[ParameterSpec]:
    try:
        comments = _comments(source)
        return [
            _read_statement(statement, comments.get(statement.end_lineno or 0, ""))
            for statement in ast.parse(source).body
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        ]
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise ParameterError(f"the parameter cell is not Python: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise ParameterError("the parameter cell is nested too deeply") from error


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
    text = ast.unparse(annotation) if annotation is not None else _guess_type(default)
    found = _TYPE.match(text)
    scalar = (found[2] or found[3]) if found else ""
    if not found or scalar not in _SCALARS:
        raise ParameterError(
            f"parameter {target.id}: type {text!r} is not known; expected {', '.join(_SCALARS)} "
            "or a list of one"
        )
    word = comment.split()[0].rstrip(":,;") if comment.split() else ""
    span = _RANGE.match(word)
    ends = span.groups() if span else (None, None)
    low, high = (float(end) if end else None for end in ends)
    return ParameterSpec(
        name=target.id,
        scalar=scalar,
        default=default,
        many=found[1] is not None,
        optional=found[4] is not None or default is None,
        help=comment,
        low=low,
        high=high,
        choices=tuple(word.split("|")) if _CHOICES.match(word) else (),
    )


def _guess_type(default: Any) -> str:
    if isinstance(default, list | tuple):
        return f"list[{type(default[0]).__name__}]" if default else "list[str]"
    return "str | None" if default is None else type(default).__name__


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }
