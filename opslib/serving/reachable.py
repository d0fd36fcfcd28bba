"""Which models must be kept: roots, and the files that belong to each as one unit.

Deleting goes by reachability: what a link, the service, its state or `.env` points at is a root,
and so is the newest export. Age only chooses among the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from opslib.core.cards import card_path
from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import InputError, ModelError
from opslib.core.models import find_model_files
from opslib.core.served import read_served_state, served_state_path


@dataclass(frozen=True)
class Root:
    """A model file that must be kept, links resolved, and the reason."""

    path: Path
    why: str


def find_roots(config: Config, *, live_path: Path | None = None) -> tuple[Root, ...]:
    """Return the models in use: newest, linked, served, served before, pinned by `MODEL_PATH`.

    Args:
        live_path: what `/version` of a running service says it serves.

    Raises:
        InputError: the service's state file cannot be read, or could not be when the service
            started: what should be served is not known.
        ConfigError: `.env` is unreadable.
    """
    found = []
    exports = [p for p in config.export_dir.glob("*.onnx") if p.is_file() and not p.is_symlink()]
    if exports:
        newest = max(exports, key=lambda path: (path.stat().st_mtime_ns, path.name))
        found.append(Root(newest.resolve(), "the newest export"))
    found += _linked(config)
    if live_path is not None:
        found.append(Root(live_path.resolve(), "served now, as /version says"))
    pinned = load_service_environment(config).model_path
    if pinned is not None:
        real = Path(os.path.realpath(config.resolve(pinned)))  # also where it leads in a circle
        found.append(Root(real, "MODEL_PATH names it"))
    state = read_served_state(config)
    if state is not None:
        found.append(Root(Path(os.path.realpath(state.current.path)), "the last one switched in"))
        found += [
            Root(Path(os.path.realpath(one.path)), "served before") for one in state.previous[:1]
        ]
        if state.wanted is not None:
            if state.wanted.path is None:
                raise InputError(
                    f"{served_state_path(config)}: which model should be served is not known "
                    f"({state.wanted.why}); switch to it: `pillops reload --path MODEL`"
                )
            found.append(Root(Path(os.path.realpath(state.wanted.path)), "it should be served"))
    return tuple(found)


def unit_files(path: Path) -> tuple[Path, ...]:
    """Return the files that are kept or deleted with the model at `path`: itself, its sidecars
    and its card; a damaged model has no known sidecars, so that files named after it count."""
    real = Path(os.path.realpath(path))
    try:
        files = find_model_files(real).all
    except (ModelError, OSError):
        files = (real, *sorted(real.parent.glob(f"{real.name}.*")))
    card = card_path(real)
    return tuple(dict.fromkeys((*files, *([card] if card.is_file() else []))))


def protected_files(roots: Iterable[Root]) -> dict[Path, str]:
    """Return every file of every root's unit and why it is kept; the first reason stands."""
    kept: dict[Path, str] = {}
    for root in roots:
        for path in unit_files(root.path):
            kept.setdefault(path.resolve(), root.why)
    return kept


def _linked(config: Config) -> list[Root]:
    folders = dict.fromkeys((config.export_dir, config.exp_dir, config.exp_dir / "checkpoints"))
    links = [path for folder in folders for path in folder.glob("*") if path.is_symlink()]
    return [Root(link.resolve(), f"{link.name} points at it") for link in links if link.exists()]
