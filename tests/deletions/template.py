"""Worlds to begin with: empty, lived in, or busy. Each is made once and copied."""

from __future__ import annotations

import copy
import functools
import gzip
import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from opslib.ops.release.restore import restore_release
from tests.deletions.needs import list_models
from tests.deletions.things import DAY_S, Fate
from tests.deletions.world import World

Kind = Literal["empty", "lived in", "busy"]
_kept: list[tempfile.TemporaryDirectory[str]] = []


def open_world(kind: Kind, *, shared: bool) -> World:
    """Return a world of its own; the one that was opened before is no more.

    One that was lived in has four models, three releases and a running service for each
    experiment; a busy one was not cleaned for two months since, so that every duty is due.
    """
    made = None if kind == "empty" else _template(kind, shared)
    world_folder = _home() / "world"
    shutil.rmtree(world_folder, ignore_errors=True)
    if made is None:
        world_folder.mkdir()
        return World(world_folder, shared)
    shutil.copytree(_home() / f"{kind}, {shared}", world_folder, symlinks=True)
    return copy.deepcopy(made)


@functools.cache
def _home() -> Path:
    """The folder of this process's worlds: all lie at one path, since paths are part of states."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    _kept.append(tempfile.TemporaryDirectory(prefix="pillops-model-", dir=place))
    return Path(_kept[0].name).resolve()


@functools.cache
def _template(kind: Kind, shared: bool) -> World:
    """A world of this kind; its files are kept under another name."""
    if kind == "busy":
        world = open_world("lived in", shared=shared)
        _neglect(world)
    else:
        world = open_world("empty", shared=shared)
        _live_in(world)
    for instance in world.instances:
        instance.tenant = None  # a new one takes the leases over
    world.root.rename(_home() / f"{kind}, {shared}")
    return world


def _live_in(world: World) -> None:
    for number in range(4):
        world.export_model(
            weights=number % 2 == 0, card=True, link=number == 1, checkpoint=None, fate=Fate()
        )
        world.clock.true_s += 2 * DAY_S
        if number > 0:
            outcome = world.release(world.instances[0], Fate())
            assert outcome.error is None, outcome.error
        for instance in world.instances if number == 0 else ():
            world.maintain(instance, Fate())
    for name, limit_days in (
        ("logs/job1.out", 30.0),
        ("logs/archive/job2.out.gz", 30.0),
        ("checkpoints/last_a.pt", 14.0),
        ("checkpoints/last_b.pt", 14.0),
        ("quantized/model-gone/int8.onnx", 30.0),
    ):
        world.leave(world.instances[0].exp / name, 0.0, limit_days)
    models = list(world.models.values())
    for instance, model in zip(world.instances, models, strict=False):
        for one in (model, models[0]):
            world.serve(instance, one, Fate())


def _neglect(world: World) -> None:
    first = world.instances[0]
    release = next(iter(world.releases.values()))
    world.run(lambda: restore_release(release.path, config=first.config, load_models=False))
    for name in (
        "logs/job.out",
        "logs/archive/old.out.gz",
        "checkpoints/last_1.pt",
        "checkpoints/last_2.pt",
        "quantized/model-old/int8.onnx",
    ):
        data = name.encode()
        world.put(first.exp / name, gzip.compress(data) if name.endswith(".gz") else data)
    world.put(first.folder / "reports/2023-01-01/000000-01_bench-abcdef/run.json", b"{}")
    world.put(first.folder / "reports/2023-01-02/000000-01_bench-abcdee/run.json", b"{}")
    for weights in (True, False, True):
        world.clock.true_s += DAY_S
        world.export_model(weights=weights, card=True, link=True, checkpoint=None, fate=Fate())
        killed = Fate(dies_at=6, torn=True)
        world.export_model(weights=weights, card=False, link=True, checkpoint=None, fate=killed)
        world.release(first, Fate())
    world.clock.true_s += 20 * DAY_S
    world.put(first.exp / "logs/api.out", b"a line of 20 days ago\n")
    world.clock.true_s += 20 * DAY_S
    for instance in world.instances:
        world.serve(instance, list_models(world)[-1], Fate())
    world.put(first.exp / "checkpoints/last_3.pt", b"new")
