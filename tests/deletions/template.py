"""Worlds to begin with: an empty one, and one that was lived in, made once and copied."""

from __future__ import annotations

import copy
import functools
import os
import shutil
import tempfile
from pathlib import Path

from tests.deletions.things import DAY_S, Fate
from tests.deletions.world import World


def open_world(shared: bool, lived_in: bool) -> World:
    """Return a world of its own; the one that was opened before is no more."""
    home = _home()
    shutil.rmtree(home / "world", ignore_errors=True)
    if not lived_in:
        (home / "world").mkdir()
        return World(home / "world", shared)
    name, made = _template(shared)
    shutil.copytree(home / name, home / "world", symlinks=True)
    world = copy.deepcopy(made)
    world.root = home / "world"
    return world


@functools.cache
def _home() -> Path:
    """The folder of this process's worlds: all lie at one path, since paths are part of states."""
    memory = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(
        prefix="pillops-model-", dir=memory if os.access(memory, os.W_OK) else None
    )
    _kept.append(folder)
    return Path(folder.name).resolve()


_kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def _template(shared: bool) -> tuple[str, World]:
    """Four models, three releases, a service for each instance; kept under another name."""
    world = open_world(shared, lived_in=False)
    for number in range(4):
        world.export_model(
            weights=number % 2 == 0, card=True, link=number == 1, checkpoint=None, fate=Fate()
        )
        world.clock.true_s += 2 * DAY_S
        if number > 0:
            world.release(world.instances[0], Fate())
    for number, instance in enumerate(world.instances):
        for model in (list(world.models.values())[number], list(world.models.values())[0]):
            world.serve(instance, model, Fate())
    name = "shared" if shared else "alone"
    world.root.rename(world.root.with_name(name))
    return name, world
