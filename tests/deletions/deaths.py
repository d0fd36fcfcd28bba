"""One death at each single operation of each deleting job, in a world that has much to delete."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from opslib.ops.release.command import prune
from opslib.upkeep.maintain_command import maintain
from opslib.upkeep.maintenance import plan_maintenance
from tests.deletions.needs import find_halves, find_missing, find_needs, read
from tests.deletions.template import open_world
from tests.deletions.things import DAY_S, Fate
from tests.deletions.world import World

JOBS: dict[str, Callable[..., Any]] = {
    "maintain": functools.partial(maintain, clock_is_right=True),  # after two months without it
    "prune": prune,
}


def list_deaths(shared: bool) -> Iterator[tuple[str, int, bool]]:
    """Yield each job with the number of each of its operations, torn in the middle or not."""
    for job in JOBS:
        for number, (kind, _) in enumerate(_operations(job, shared)):
            yield job, number, False
            if kind == "bytes":
                yield job, number, True


def die_once(job: str, number: int, torn: bool, shared: bool) -> list[str]:
    """Kill a job at one operation and run it again; return what is wrong then, a line each."""
    world = open_world("busy", shared=shared)
    first = world.instances[0]
    config = first.config_path
    needs = find_needs(world, first)
    killed = world.run(lambda: JOBS[job](config=config), Fate(dies_at=number, torn=torn))
    found = [] if killed.life.dead else [f"there is no operation {number} of {job}"]
    found += [*find_missing(world, needs), *find_halves(world)]
    again = world.run(lambda: JOBS[job](config=config))
    found += [f"the second run: {again.error}"] if again.error else []
    found += find_missing(world, needs)
    world.clock.true_s += 2 * DAY_S
    world.run(lambda: JOBS["maintain"](config=config))
    left: list[str] = []
    world.run(lambda: left.extend(plan_maintenance(first.config).plan.lines()[1:]))
    return [*found, *left, *_differences(world, job, shared)]


@functools.cache
def _operations(job: str, shared: bool) -> list[tuple[str, str]]:
    world = open_world("busy", shared=shared)
    config = world.instances[0].config_path
    return world.run(lambda: JOBS[job](config=config)).life.done


def _differences(world: World, job: str, shared: bool) -> list[str]:
    """What is there after a death and was not to be, or the other way round."""
    found, calm = _leavings(world), _calm_leavings(job, shared)
    return [f"{name}: differs from a calm run" for name in sorted(found ^ calm)]


@functools.cache
def _calm_leavings(job: str, shared: bool) -> frozenset[str]:
    world = open_world("busy", shared=shared)
    config = world.instances[0].config_path
    for _ in range(2):
        world.run(lambda: JOBS[job](config=config))
    world.clock.true_s += 2 * DAY_S
    world.run(lambda: JOBS["maintain"](config=config))
    return _leavings(world)


def _leavings(world: World) -> frozenset[str]:
    """The files there are, but for accounts, whose number and names follow the runs, and for the
    notes of who holds a lock."""
    files = (one.relative_to(world.root) for one in world.root.rglob("*") if read(one) is not None)
    return frozenset(
        str(one)
        for one in files
        if one.parts[1:3] != ("exp", "reports") and one.suffix not in (".holder", ".lock")
    )
