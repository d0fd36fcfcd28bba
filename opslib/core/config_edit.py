"""The YAML text of a configuration: read strictly, and edited so that all else stays as it is."""

import io
import reprlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from opslib.core.changes import change_file
from opslib.core.config_end import END, check_end, has_promise, without_end
from opslib.core.errors import ConfigError, StorageError, storage_errors
from opslib.core.formatting import map_texts
from opslib.core.plans import Action, Plan
from opslib.core.secrets import show_address

Value = str | int | float | bool | list[str]
Check = Callable[[str], object]
_ABSENT = object()
_BOM = "\ufeff"
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 120
_SHORT.maxlevel = 3
_DEPTH = 8  # of what is shown, cut short much sooner


class _StrictLoader(yaml.SafeLoader):
    """Plain values alone; a key that stands twice and half a character are refused."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    line = key.start_mark.line + 1
                    raise ConfigError(f"{key.value}: stands twice, at line {line}")
                seen.add((key.tag, key.value))
        return node

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        refuse_half_characters(str(value), f"line {node.start_mark.line + 1}")
        return value


def parse_yaml(text: str, name: str) -> Any:
    """Return the plain values of a YAML `text`. `name`: the file or variable it comes from, for the
    message. Raises `ConfigError` where it is not YAML, holds an impossible value, or a key stands
    twice."""
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 (derived from SafeLoader)
    except ConfigError as error:
        raise ConfigError(on_one_line(f"{name}: {error}")) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "broken"
        raise ConfigError(on_one_line(f"{name}: not YAML{where}: {problem}")) from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deeply") from error
    except (ValueError, OverflowError) as error:
        raise ConfigError(on_one_line(f"{name}: an impossible value: {error}")) from error


def refuse_half_characters(text: str, name: str) -> None:
    """Raise `ConfigError` where `text` holds a lone surrogate: no file and no terminal takes it."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ConfigError(f"{name}: got {show_value(text)}: not UTF-8 text")


def show_value(value: object) -> str:
    """Return a value as Python writes it, on one line and cut short; no password that stands in
    an address is repeated."""
    try:
        return on_one_line(_SHORT.repr(map_texts(value, show_address, _DEPTH)))
    except ValueError:
        return "a number of thousands of digits"


def on_one_line(text: str) -> str:
    """Return `text` with line ends and what cannot be printed written as escapes."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def plan_config_edit(
    source: Path, changes: Mapping[str, Value], *, why: str, check: Check | None = None
) -> Plan:
    """Return what must change in `source` for these keys to have these values: one step or none.

    Args:
        changes: values by dotted key, such as `onnx.allow_spinning`.
        why: shown beside the change.
        check: takes the new text and raises where it must not be written.

    Raises:
        ConfigError: the file is not a configuration with sections, or `check` refuses.
    """
    with storage_errors(f"read {source}"):
        text = _decode(source.read_bytes(), source)
    data = _load(text, source)
    wanted: dict[str, Value] = {}
    shown = []
    for key, value in changes.items():
        old = _find(data, key)
        old = list(old) if isinstance(old, list) else old
        if old is _ABSENT or old != value:
            wanted[key] = value
            before = "not set" if old is _ABSENT else _show(old)
            shown.append(f"{on_one_line(key)}: {before} -> {_show(value)}")
    if not wanted:
        return Plan(f"edit {source}")
    _edit_checked(text, wanted, source, check)
    action = Action("set", "; ".join(shown), why, partial(set_keys, source, wanted, check=check))
    return Plan(f"edit {source}", (action,))


def set_keys(source: Path, changes: Mapping[str, Value], *, check: Check | None = None) -> None:
    """Set dotted keys of a configuration file, all at once; a link, owner and mode stay. Raises
    `BusyError` where another process is changing it; `StorageError` where it cannot be written, or
    not without taking it from its owner; `ConfigError` where the file is not a configuration with
    sections, or `check` refuses."""

    def change(before: bytes | None) -> bytes:
        if before is None:
            raise StorageError(f"cannot read {source}: no such file")
        return _edit_checked(_decode(before, source), changes, source, check).encode()

    change_file(source, change)


def edit_yaml(text: str, changes: Mapping[str, Value], source: Path = Path("config.yaml")) -> str:
    """Return the YAML `text` with these dotted keys set; comments, order, line ends and a byte
    order mark are kept. Raises `ConfigError` where the text is cut off or not a configuration with
    sections, or a value would not be read back as it was given."""
    data = _load(text, source)
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        section = data
        for parent in parents:
            section = section.setdefault(parent, {})
            if not hasattr(section, "setdefault"):
                raise ConfigError(f"{source}: {parent} is not a section; cannot set {key}")
        section[leaf] = _flow(value) if isinstance(value, list) else value
    stream = io.StringIO()
    _yaml().dump(data, stream)
    edited = stream.getvalue() + (f"{END}\n" if has_promise(text) else "")
    read_back = parse_yaml(edited, str(source))
    for key, value in changes.items():
        if _find(read_back, key) != value:
            raise ConfigError(f"{source}: {on_one_line(key)}: cannot be set to {_show(value)}")
    if text.count("\r\n") * 2 > text.count("\n"):
        edited = edited.replace("\n", "\r\n")
    return _BOM + edited if text.startswith(_BOM) else edited


def _edit_checked(
    text: str, changes: Mapping[str, Value], source: Path, check: Check | None
) -> str:
    edited = edit_yaml(text, changes, source)
    if check is not None:
        check(edited)
    return edited


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _load(text: str, source: Path) -> Any:
    from ruamel.yaml.error import YAMLError

    check_end(text, str(source))
    parse_yaml(text, str(source))
    try:
        data = _yaml().load(without_end(text).removeprefix(_BOM).replace("\r\n", "\n"))
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}: not YAML{where}") from error
    if not hasattr(data, "setdefault"):
        raise ConfigError(f"{source}: expected sections such as `onnx:`")
    return data


def _find(data: Any, key: str) -> Any:
    for part in key.split("."):
        if not hasattr(data, "get") or part not in data:
            return _ABSENT
        data = data[part]
    return data


def _flow(values: list[str]) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else show_value(value)


def _decode(data: bytes, source: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: cannot be read: {error}") from error
