"""What must not be deleted, worked out from the world alone: nothing here asks the code under test.

Who needs a thing is a root: what is served or was before, linked, pinned, the newest, what a person
made, what is younger than its limit. Times are the true ones, not those that a clock showed.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.deletions.things import DAY_S, Aged, Instance, Model, Release
from tests.deletions.world import KEEP_ONNX, KEEP_RELEASES, World

SLACK_S = DAY_S  # clocks of two machines are never quite alike


@dataclass(frozen=True)
class Needs:
    """What is needed at a moment: files with their content (a link's is its target) and why;
    logs, wherever their content lies by now; and how many models must be left."""

    files: dict[Path, tuple[bytes | str, str]]
    logs: tuple[Aged, ...]
    models: int


def find_needs(world: World, acting: Instance) -> Needs:
    """Return what no job that `acting`'s configuration starts may delete."""
    files: dict[Path, tuple[bytes | str, str]] = {}
    for path, why in _wanted(world, acting):
        content = read(path)
        if content is not None:
            files.setdefault(path, (content, why))
    logs = tuple(one for one in world.aged if one.is_log and _is_young(world, acting, one))
    there = [one for one in list_models(world) if _mtime(one.path) <= world.clock.shown_s]
    return Needs(files, tuple(one for one in logs if find_log(one)), min(KEEP_ONNX, len(there)))


def find_missing(world: World, needs: Needs) -> list[str]:
    """Return what was needed and is not there any more, or is not what it was, a line each."""
    found = [
        f"{path.relative_to(world.root)}: {why}"
        for path, (content, why) in needs.files.items()
        if read(path) != content
    ]
    found += [f"{one.path.name}: a log of this month" for one in needs.logs if not find_log(one)]
    left = len(list_models(world))
    if left < needs.models:
        found.append(f"{left} models are left, {needs.models} were to be")
    return found


def find_halves(world: World) -> list[str]:
    """Return the releases that are seen without what belongs to them: what is seen is whole."""
    seen = (one for one in world.releases.values() if one.path.exists())
    return [f"{one.name} is not whole" for one in seen if not all(p.exists() for p in one.files)]


def read(path: Path) -> bytes | str | None:
    """What a path holds: bytes, a link's target, or None where it is nothing of that."""
    try:
        return str(path.readlink()) if path.is_symlink() else path.read_bytes()
    except OSError:
        return None


def list_models(world: World) -> list[Model]:
    """The exported models that are there."""
    return [one for path, one in world.models.items() if path.is_file()]


def find_log(log: Aged) -> bool:
    """Whether what stood in a log is found in one place or another."""
    folder = log.path.parent
    packed = (gzip.decompress(one.read_bytes()) for one in folder.glob("archive/[!.]*.gz"))
    plain = (one.read_bytes() for one in folder.glob("[!.]*") if one.is_file())
    return any(log.data in content for content in (*plain, *packed))


def find_leftovers(world: World) -> list[Path]:
    """Hidden files and folders that no person made and that nobody needs in peace."""
    found = []
    for folder, folders, files in os.walk(world.root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if name[0] != "." or path in world.person or name in (".env", ".env.example"):
                continue
            if name == ".in-use" or name.endswith((".lock", ".holder")):
                continue
            if _mtime(path) <= world.clock.true_s:
                found.append(path)
    return found


def _wanted(world: World, acting: Instance) -> Iterator[tuple[Path, str]]:
    for path in world.person:
        yield path, "a person made it"
    roots = dict(_model_roots(world, acting))
    checkpoints = {"best.pt": "the best checkpoint"}
    for path, why in roots.items():
        model = world.models.get(path)
        for one in model.files if model else (path,):
            yield one, why
        if path.is_relative_to(acting.exp / "releases" / "restored"):
            folder = acting.exp / "releases" / "restored"
            restored = folder / path.relative_to(folder).parts[0]
            for one in restored.rglob("*"):
                yield one, f"restored, and {why}"
    for model in list_models(world):  # whoever stays visible stays whole
        if model.checkpoint and model.path in roots:
            checkpoints[model.checkpoint] = f"{model.path.name} was made from it"
    for name, why in checkpoints.items():
        yield acting.exp / "checkpoints" / name, why
    for release, why in _releases(world, acting):
        for path in release.files:
            yield path, why
    for one in world.aged:
        if not one.is_log and _is_young(world, acting, one):
            yield one.path, f"younger than {one.limit_days:g} days"


def _model_roots(world: World, acting: Instance) -> Iterator[tuple[Path, str]]:
    """Models that somebody needs, the first reason last, so that it stands."""
    there = list_models(world)
    past = [one for one in there if _mtime(one.path) <= world.clock.shown_s]
    if past:
        yield max(past, key=lambda one: (_mtime(one.path), one.path.name)).path, "the newest export"
    for release in world.releases.values():  # of others the archive holds what is pinned
        if release.pinned and release.path.exists() and release.path.is_relative_to(acting.exp):
            for model in release.models:
                yield model.path, f"{release.name} is pinned"
    for folder in (acting.export, acting.exp, acting.exp / "checkpoints"):
        for one in folder.iterdir():
            if one.is_symlink() and one.exists():
                yield one.resolve(), f"{one.name} points at it"
    for instance in world.instances:
        if instance is acting or instance.answer != "down" or instance.leases:
            yield from _service_roots(instance)


def _service_roots(instance: Instance) -> Iterator[tuple[Path, str]]:
    """What one service needs: running, what it has; not running, what it would start with."""
    if instance.pin is not None:
        yield instance.pin, f"{instance.name} is pinned to it"
    for lease in instance.leases:
        for name in json.loads(lease.read_bytes())["models"]:
            yield lease.parents[1] / name, f"the lease of {instance.name} names it"
    for place, path in enumerate(read_history(instance)[:2]):
        yield path, f"{instance.name} served it {'last' if place == 0 else 'before'}"
    if instance.answer != "down" and instance.serving is not None:
        yield instance.serving.path, f"{instance.name} serves it now"


def read_history(instance: Instance) -> list[Path]:
    """The models of a service's state, the current one first."""
    try:
        content = json.loads((instance.exp / "served.json").read_bytes())
    except OSError:
        return []
    return [Path(one["path"]) for one in (content["current"], *content["previous"])]


def _releases(world: World, acting: Instance) -> Iterator[tuple[Release, str]]:
    """Releases that must stay: pinned, unsound, the newest by their true order, and the newest that
    holds a model in service or before it."""
    there = [one for one in world.releases.values() if one.path.exists()]
    there = [one for one in there if one.path.is_relative_to(acting.exp)]
    for one in there:
        if one.pinned:
            yield one, "pinned"
        if not one.sound:
            yield one, "not sound: a person must look at it"
    sound = [one for one in there if one.sound and one.dated_s <= world.clock.shown_s]
    sound.sort(key=lambda one: one.number, reverse=True)
    for one in sound[:KEEP_RELEASES]:
        yield one, "one of the newest sound releases"
    served = [world.models[path] for path in read_history(acting)[:2] if path in world.models]
    for model in (*served, *([acting.serving] if acting.serving else [])):
        holder = next((one for one in sound if model in one.models), None)
        if holder is not None:
            yield holder, f"the newest that holds {model.path.name}, which is served"


def _is_young(world: World, acting: Instance, one: Aged) -> bool:
    """Whether it is really younger than its limit. Where nothing was ever cleaned there is nothing
    that a clock could be compared with, if what is there was made under the same wrong clock."""
    if world.clock.error_s > DAY_S and not acting.was_cleaned:
        return False
    return world.clock.true_s - one.made_s < one.limit_days * DAY_S - SLACK_S


def _mtime(path: Path) -> float:
    return path.lstat().st_mtime
