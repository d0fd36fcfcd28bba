"""Editing `config.yaml` in place: single keys change, comments and everything else stay."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from opslib.core.errors import ConfigError, storage_errors
from opslib.core.files import write_text_atomic
from opslib.core.plans import Action, Plan

Value = str | int | float | bool | list[str]
_ABSENT = object()


def plan_config_edit(source: Path, changes: Mapping[str, Value], *, why: str) -> Plan:
    """Return what must change in `source` for these keys to have these values.

    Args:
        changes: values by dotted key, such as `onnx.allow_spinning`.
        why: shown beside each change.

    Raises:
        ConfigError: the file is not a configuration with sections.
    """
    data = _load(_read(source), source)
    actions = []
    for key, value in changes.items():
        old = _find(data, key)
        if old is _ABSENT or _plain(old) != value:
            shown = "not set" if old is _ABSENT else _show(_plain(old))
            target = f"{key}: {shown} -> {_show(value)}"
            actions.append(Action("set", target, why, partial(set_key, source, key, value)))
    return Plan(f"edit {source}", tuple(actions))


def set_key(source: Path, key: str, value: Value) -> None:
    """Set one dotted key of a configuration file in one step.

    Raises:
        ConfigError: the file is not a configuration with sections.
    """
    write_text_atomic(source, edit_yaml(_read(source), {key: value}, source))


def edit_yaml(text: str, changes: Mapping[str, Value], source: Path = Path("config.yaml")) -> str:
    """Return the YAML `text` with these dotted keys set, comments and order kept.

    Raises:
        ConfigError: the text is not a configuration with sections.
    """
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
    return stream.getvalue()


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

    try:
        data = _yaml().load(text)
    except YAMLError as error:
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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


def _show(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(source: Path) -> str:
    with storage_errors(f"read {source}"):
        return source.read_text(encoding="utf-8")
