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
from opslib.core.kinds import list_kinds, named_in_env_files
from opslib.core.served import read_served_state
from opslib.inference.find_model import list_exports
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
    """Return the models in use: the newest of each kind, linked, served, served before, pinned, and
    what services of other experiments say in their leases.

    Args:
        live: what running services say.

    Raises:
        InputError: a service's state or lease cannot be read, or could not be when the service
            started: what is or should be served is not known.
        ConfigError: a file with pins is unreadable.
    """
    found = []
    kinds = list_kinds(config)
    for kind in kinds:
        for path in list_exports(config.export_dir, kind)[:1]:
            found.append(Root(path.resolve(), f"the newest {'export' if kind.sole else kind.name}"))
    found += _linked(config)
    for one in live:
        if one.path is not None:
            found.append(Root(one.path.resolve(), "served now, as /version says", of_service=True))
    pins = [(kind.pin, path) for kind in kinds for path in kind.pins()]
    for name, path in dict.fromkeys([*pins, *named_in_env_files(config)]):
        found.append(Root(_real(path), f"{name} names it", of_service=True))
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
    cleaned = [(config.exp_dir / one).parent for one in config.maintenance.checkpoint_patterns]
    usual = (config.export_dir, config.exp_dir, config.exp_dir / "checkpoints")
    folders = dict.fromkeys((*usual, *cleaned))
    links = [path for folder in folders for path in folder.glob("*") if path.is_symlink()]
    # One that leads nowhere counts too: what it names may be hidden for its deletion just now.
    return [Root(_real(link), f"{link.name} points at it") for link in links]
