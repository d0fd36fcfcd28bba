"""Pruning a store that several hosts share: by the rules of the local one, and what is in use is
asked as it is there; what pushes left that never ended goes too."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from opslib.core.config import Config
from opslib.core.errors import InputError, StorageError
from opslib.core.formatting import plural, utc_now
from opslib.core.lately import Lately
from opslib.core.plans import Action, Plan
from opslib.core.store import Entry, Store
from opslib.ops.release.prune import Live, find_kept
from opslib.ops.release.remote import PIN_SUFFIX, Holdings, RemoteRelease, look_into
from opslib.ops.release.store import read_pins
from opslib.serving.reachable import ask_services


def plan_remote_prune(
    config: Config,
    found: Holdings,
    *,
    keep: int | None = None,
    live: Live = (),
    now: datetime | None = None,
) -> Plan:
    """Return the plan that leaves of a store what `prune.plan_prune` would leave; each step looks
    into it and asks again. Raises InputError: see there."""
    count = keep or config.release.keep
    kept = find_kept(config, keep=count, live=live, now=now, releases=found.releases)

    def look() -> dict[str, str]:
        there = look_into(found.store, now=now, pinned=read_pins(config).names).releases
        return find_kept(config, keep=keep, live=ask_services(config), now=now, releases=there)

    kept_by_now = Lately(look)
    why = f"older than the newest {plural(count, 'release')}"
    actions = []
    for release in found.releases:
        if release.name not in kept:
            size = sum(entry.bytes for entry in release.objects.values())
            run = partial(_delete, release, kept_by_now)
            actions.append(Action("delete", release.url, why, run, frees_bytes=size))
    actions += _plan_leftovers(config, found, now or utc_now())
    return Plan(f"prune {found.store.url}", tuple(actions))


def _delete(release: RemoteRelease, kept: Lately[dict[str, str]]) -> None:
    """Delete a whole release, its checksum first: then nobody sees it any more."""
    try:
        why = kept.get().get(release.name)
    except InputError as error:
        raise StorageError(str(error)) from error
    if why is not None:
        raise StorageError(f"it is kept by now: {why}")
    if f"{release.name}{PIN_SUFFIX}" in release.store.list(f"{release.name}."):
        raise StorageError("was pinned meanwhile")
    release.store.delete(release.objects)


def _plan_leftovers(config: Config, found: Holdings, now: datetime) -> Iterator[Action]:
    """What nobody has touched for as long as leftovers are kept here; another host's push that is
    under way is younger."""
    oldest_s = now.timestamp() - config.maintenance.leftover_hours * 3600
    for name, objects in found.unfinished.items():
        if max(entry.modified_s for entry in objects.values()) < oldest_s:
            why = "left by a push or a deletion that never ended"
            size = sum(entry.bytes for entry in objects.values())
            run = partial(_delete_leftover, found.store, name, objects)
            yield Action("delete", f"{found.store.url}/{name}", why, run, frees_bytes=size)


def _delete_leftover(store: Store, name: str, objects: dict[str, Entry]) -> None:
    if store.list(f"{name}.") != objects:
        raise StorageError("it changed meanwhile: somebody pushes it")
    store.delete(objects)
