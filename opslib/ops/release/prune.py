"""Pruning the store: what may go is planned first; what is needed to go back never does."""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import BusyError, InputError, ModelError, OpsError, StorageError
from opslib.core.files import fsync_folder
from opslib.core.formatting import plural
from opslib.core.lately import Lately
from opslib.core.locks import hold_lock
from opslib.core.models import find_model_files
from opslib.core.plans import Action, Plan
from opslib.core.served import read_served_state
from opslib.ops.release.record import read_proofs
from opslib.ops.release.store import (
    LOCK_NAME,
    ListedRelease,
    StoredRelease,
    list_releases,
    read_pins,
)
from opslib.serving.reachable import LiveModel, Root, ask_services, find_roots

_LOCK_WAIT_S = 10.0
Live = Sequence[LiveModel]  # what running services say they serve


def plan_prune(
    config: Config, *, keep: int | None = None, live: Live = (), now: datetime | None = None
) -> Plan:
    """Return the plan that leaves the newest `keep` releases (by default `release.keep`) and those
    that must stay; each step asks again whether its release must. `live` is what running services
    say they serve; what is dated after `now` is left alone. Raises InputError: what is pinned,
    served or proved cannot be read, so that nothing may be deleted."""
    read_pins(config)
    count = keep or config.release.keep
    kept = find_kept(config, keep=count, live=live, now=now)
    kept_by_now = Lately(lambda: find_kept(config, keep=keep, live=ask_services(config), now=now))
    why = f"older than the newest {plural(count, 'release')}"
    actions = []
    for release in list_releases(config, now=now):
        if release.name not in kept:
            size = sum(path.stat().st_size for path in release.files)
            run = partial(_delete, config, release, kept_by_now)
            actions.append(Action("delete", str(release.path), why, run, frees_bytes=size))
    return Plan(f"prune {config.releases_dir}", tuple(actions))


def find_kept(
    config: Config,
    *,
    keep: int | None = None,
    live: Live = (),
    now: datetime | None = None,
    releases: Sequence[ListedRelease] | None = None,
) -> dict[str, str]:
    """Return the names of the releases that stay, each with the first reason for it. `releases`:
    those of another place than `{exp_dir}/releases`, the newest first.

    The newest are those by their sequence and those by their date: where the two differ, a clock
    was wrong, and none of them goes. Whatever is broken, dated after now, failed its last restore
    test or is no release stays too, and does not count: a person must look at it. Raises
    InputError: see `plan_prune`.
    """
    kept: dict[str, str] = {}
    sound: list[ListedRelease] = []
    last_tests = {one.release: one for one in read_proofs(config)}
    for release in list_releases(config, now=now) if releases is None else releases:
        last = last_tests.get(release.name)
        if release.problem is not None:
            kept[release.name] = f"left alone: {release.problem}"
        elif last is not None and not last.ok:
            day = last.proved_at_utc[:10]
            kept[release.name] = f"left alone: it failed its restore test of {day}"
        else:
            sound.append(release)
    reasons = ["the newest release", "the release before the newest"]
    count = max(2, keep or config.release.keep)
    for place, release in enumerate(sound[:count]):
        kept[release.name] = reasons[place] if place < 2 else "one of the newest"
    for release in sorted(sound, key=lambda one: one.released_at_utc or "", reverse=True)[:count]:
        kept.setdefault(release.name, "one of the newest by its date")
    for release in sound:
        if release.pinned:
            kept.setdefault(release.name, "pinned")
    roots = find_roots(config, live)
    restored = config.restore_dir.resolve()
    for root in roots:
        if root.path != restored and root.path.is_relative_to(restored):
            name = root.path.relative_to(restored).parts[0]
            kept.setdefault(name, f"restored, and {root.why}")
    for digest, why in _served_digests(config, roots, live):
        holder = _newest_holder(sound, digest, kept)
        if holder is not None:
            kept.setdefault(holder, f"the newest that holds the model {why}")
    return kept


def _served_digests(config: Config, roots: Sequence[Root], live: Live) -> list[tuple[str, str]]:
    found = [(one.sha256, "that is served now, as /version says") for one in live if one.sha256]
    told: set[Path] = set()
    state = read_served_state(config)
    if state is not None:
        served = [(state.current.sha256, "last switched in")]
        served += [(one.sha256, "served before") for one in state.previous[:1]]
        found = served + found
        told = {Path(os.path.realpath(path)) for path, _ in state.needed()}
        wanted = state.wanted
        if wanted is not None and wanted.path is not None and wanted.sha256 is not None:
            # Its file may be gone; then a release is all that holds it.
            found.append((wanted.sha256, "that should be served"))
        elif wanted is not None and wanted.path is not None:
            told.discard(Path(os.path.realpath(wanted.path)))
    for root in roots:
        if root.of_service and root.path not in told:
            with suppress(ModelError, OSError):
                found.append((find_model_files(root.path).digest(), f"that is {root.why}"))
    return found


def _newest_holder(releases: list[ListedRelease], digest: str, kept: dict[str, str]) -> str | None:
    """The newest release that holds a model; one whose manifest cannot be read is left alone."""
    for release in releases:
        try:
            if digest in release.manifest().digests():
                return release.name
        except OpsError as error:
            kept.setdefault(release.name, f"left alone: {error}")
    return None


def _delete(config: Config, release: StoredRelease, kept: Lately[dict[str, str]]) -> None:
    """Delete a whole release, the archive first: none is ever seen without its checksum."""
    lock = config.releases_dir / LOCK_NAME
    try:
        why = kept.get().get(release.name)
        if why is not None:
            raise StorageError(f"it is kept by now: {why}")
        with hold_lock(lock, "pruning releases", wait_s=_LOCK_WAIT_S):
            if release.name in read_pins(config).names:
                raise StorageError("was pinned meanwhile")
            for path in release.files:
                path.unlink(missing_ok=True)
            fsync_folder(release.path.parent)
    except (InputError, BusyError) as error:
        raise StorageError(str(error)) from error
