"""Paths that lie in a folder which is moved: they move with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)
Move = Callable[[Path], Path | None]


def make_move(root: Path, old: Path, new: Path) -> Move:
    """Return a function that says where a path in `old` lies after the move to `new`; None for one
    that does not lie in it.

    Args:
        root: what a relative path counts from.
    """
    home = Path(os.path.normpath(old))

    def move(path: Path) -> Path | None:
        there = Path(os.path.normpath(root / path.expanduser()))
        return new / there.relative_to(home) if there.is_relative_to(home) else None

    return move


def move_paths(
    model: Model, move: Move, fixed: Container[str], prefix: str = ""
) -> tuple[Model, list[str]]:
    """Return `model` with the paths moved that were given, and the dotted keys of these.

    Args:
        fixed: dotted keys that stay as they are.
    """
    changes, moved = dict[str, Any](), list[str]()
    for name in sorted(model.model_fields_set):
        key, value = f"{prefix}{name}", getattr(model, name)
        if key in fixed:
            continue
        changes[name], inner = _move_value(value, move, fixed, key)
        moved += inner
    return (model.model_copy(update=changes) if moved else model), moved


def _move_value(value: Any, move: Move, fixed: Container[str], key: str) -> tuple[Any, list[str]]:
    if isinstance(value, BaseModel):
        return move_paths(value, move, fixed, f"{key}.")
    if isinstance(value, dict):
        pairs = {
            name: _move_value(one, move, fixed, f"{key}.{name}") for name, one in value.items()
        }
        inner = [key for _, keys in pairs.values() for key in keys]
        return {name: one for name, (one, _) in pairs.items()}, inner
    if isinstance(value, tuple):
        found = [_move_value(one, move, fixed, key) for one in value]
        return tuple(one for one, _ in found), [key] if any(keys for _, keys in found) else []
    there = move(value) if isinstance(value, Path) else None
    return (value, []) if there is None else (there, [key])
