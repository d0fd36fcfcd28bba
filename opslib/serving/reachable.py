"""Which models must be kept: the roots.

Deleting goes by reachability: what a link, the service, its state or `.env` points at is a root,
and so is the newest export. Age only chooses among the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.served import read_served_state
from opslib.inference.find_model import newest_first
from opslib.serving.leases import find_leases


@dataclass(frozen=True)
class LiveModel:
    """The model that a running service says it serves; `note` tells what was asked and learnt."""

    note: str
    path: Path | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Root:
    """A model file that must be kept, links resolved, and the reason; `of_service` where a service
    uses it or would start with it."""

    path: Path
    why: str
    of_service: bool = False


def find_roots(config: Config, live: Iterable[LiveModel] = ()) -> tuple[Root, ...]:
    """Return the models in use: newest, linked, served, served before, pinned by `MODEL_PATH`, and
    what services of other experiments say in their leases.

    Args:
        live: what running services say.

    Raises:
        InputError: a service's state or lease cannot be read, or could not be when the service
            started: what is or should be served is not known.
        ConfigError: `.env` is unreadable.
    """
    found = []
    exports = [p for p in config.export_dir.glob("*.onnx") if p.is_file() and not p.is_symlink()]
    if exports:
        found.append(Root(newest_first(exports)[0].resolve(), "the newest export"))
    found += _linked(config)
    for one in live:
        if one.path is not None:
            found.append(Root(one.path.resolve(), "served now, as /version says", of_service=True))
    pinned = load_service_environment(config).model_path
    if pinned is not None:
        path = _real(config.resolve(pinned))
        found.append(Root(path, "MODEL_PATH names it", of_service=True))
    state = read_served_state(config)
    if state is not None:
        found += [Root(_real(path), why, of_service=True) for path, why in state.needed()]
    for lease in find_leases(config):
        found += [Root(_real(path), why, of_service=True) for path, why in lease.models()]
    return tuple(found)


def _real(path: Path) -> Path:
    """The path with its links followed as far as they lead: one may dangle, or lead in a circle."""
    return Path(os.path.realpath(path))


def _linked(config: Config) -> list[Root]:
    folders = dict.fromkeys((config.export_dir, config.exp_dir, config.exp_dir / "checkpoints"))
    links = [path for folder in folders for path in folder.glob("*") if path.is_symlink()]
    # One that leads nowhere counts too: what it names may be hidden for its deletion just now.
    return [Root(Path(os.path.realpath(link)), f"{link.name} points at it") for link in links]
