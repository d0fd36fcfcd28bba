"""The paths of a configuration, moved with the folder that they lie in."""

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def move_paths(
    value: Any, move: Callable[[Path], Path | None], fixed: Container[str], key: str = ""
) -> tuple[Any, list[str]]:
    """Return what a configuration has at the dotted `key`, with the paths moved that were given in
    it, and the dotted keys of these; what is `fixed`, and for what `move` is None, stays."""
    if key in fixed:
        return value, []
    if isinstance(value, Path):
        there = move(value)
        return (value, []) if there is None else (there, [key])
    if isinstance(value, tuple):
        found = [move_paths(one, move, (), key) for one in value]
        return tuple(one for one, _ in found), [key] if any(keys for _, keys in found) else []
    if isinstance(value, BaseModel):
        inner = {name: getattr(value, name) for name in sorted(value.model_fields_set)}
    elif isinstance(value, dict):
        inner = value
    else:
        return value, []
    pairs = {
        name: move_paths(one, move, fixed, f"{key}.{name}" if key else name)
        for name, one in inner.items()
    }
    moved = [key for _, keys in pairs.values() for key in keys]
    changes = {name: one for name, (one, _) in pairs.items()}
    if isinstance(value, BaseModel):
        return (value.model_copy(update=changes) if moved else value), moved
    return changes, moved
