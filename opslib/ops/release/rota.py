"""Restore tests by a rota that covers every release over time.

The order: a release whose last test failed, then one that was never tested, then the one whose
last test is longest ago.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.formatting import stamp
from opslib.core.lineage import record_lineage
from opslib.core.locks import hold_lock
from opslib.ops.release.proof_record import ProofRecord, RotaRecord
from opslib.ops.release.proofs import Proof, add_proof, read_proofs
from opslib.ops.release.proving import Progress, carry_out_proof
from opslib.ops.release.store import StoredRelease, list_releases

LOCK_NAME = ".restore-test.lock"


class Listed(Protocol):
    """What the rota must know of a release."""

    @property
    def name(self) -> str:
        """The name under which its tests are kept."""


R = TypeVar("R", bound=Listed)


def choose_release(config: Config, *, without: Collection[str] = ()) -> StoredRelease:
    """Return the release whose turn it is (see `next_in_rota`); broken ones have turns too, so
    that they are reported.

    Raises:
        InputError: there is none left to choose from, or the history cannot be read.
    """
    releases = [one for one in list_testable(config) if one.name not in without]
    found = next_in_rota(releases, read_proofs(config))
    if found is None:
        raise InputError(
            f"{config.releases_dir}: no {'other ' if without else ''}release; make one with "
            "`pillops release create`"
        )
    return found


def list_testable(config: Config) -> tuple[StoredRelease, ...]:
    """Return the releases that have turns, the newest first: broken ones too, but not archives
    that are no releases by their name."""
    return tuple(one for one in list_releases(config) if one.released_at_utc is not None)


def next_in_rota(releases: Sequence[R], proofs: Sequence[Proof]) -> R | None:
    """Return the release to test next, or None where there is none.

    A failed one comes back at once. Once that repeated test has failed as well, every other turn
    is for the rest, so that a release that stays broken keeps no other from being tested.

    Args:
        releases: the newest first, as never tested ones are taken.
        proofs: the history, the oldest first.
    """
    last = {one.release: (at, one.ok) for at, one in enumerate(proofs)}
    failed = [one for one in releases if one.name in last and not last[one.name][1]]
    rest = [one for one in releases if one not in failed]
    turn = failed if failed and not (rest and _was_repeated_failure(proofs)) else rest
    return min(turn, key=lambda one: last.get(one.name, (-1, True))[0], default=None)


def list_unproved(releases: Iterable[Listed], proofs: Sequence[Proof]) -> tuple[str, ...]:
    """Return the names of the releases that their last test, if there was one, does not prove."""
    last = {one.release: one.standing for one in proofs}
    return tuple(one.name for one in releases if last.get(one.name) != "proved")


def prove_release(
    config: Config, stored: StoredRelease, *, progress: Progress | None = None
) -> ProofRecord:
    """Test whether a release restores, keep the answer in the history, and return it.

    A release that does not restore is an answer, not an error.

    Raises:
        BusyError: another restore test is under way.
        InputError: the history cannot be read.
        StorageError: the disk is full: that is no fault of the release.
    """
    lock = config.releases_dir / LOCK_NAME
    with hold_lock(lock, f"restore test of {stored.name}"):
        read_proofs(config)
        record = carry_out_proof(config, stored, progress)
        if stored.path.resolve().parent == config.releases_dir.resolve():
            add_proof(config, record.proof)  # a copy elsewhere proves nothing of the store's own
    return record


def prove_by_rota(
    config: Config,
    *,
    first: StoredRelease | None = None,
    turns: int = 1,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RotaRecord:
    """Test `first`, if given, then the releases of the next `turns`, each once, and return what
    was found.

    Args:
        dry_run: say whose turn it is, test nothing.

    Raises:
        InputError: there is no release, or the history cannot be read.
        BusyError: another restore test is under way.
        StorageError: the disk is full.
    """
    store = list_testable(config)
    before = list_unproved(store, read_proofs(config))
    chosen = [first] if first is not None else []
    tests: list[ProofRecord] = []
    for turn in range(len(chosen) + turns):
        done = {one.name for one in chosen[:turn]}
        if turn == len(chosen):
            if done >= {one.name for one in store} and (store or dry_run):
                break
            chosen.append(choose_release(config, without=done))
        if not dry_run:
            tests.append(prove_release(config, chosen[turn], progress=progress))
    return RotaRecord(
        lineage=record_lineage(),
        releases=tuple(one.name for one in store),
        unproved_before=before,
        unproved_after=list_unproved(store, read_proofs(config)),
        tests=tuple(tests),
        planned=tuple(one.name for one in chosen) if dry_run else (),
    )


def keep_rota(record: RotaRecord, config: Config, path: Path | None = None) -> Path:
    """Keep the record at `path`, by default `{exp_dir}/reports/release_rota_<UTC>.json`, and
    return the path."""
    return record.write(path or config.records_dir / f"release_rota_{stamp()}.json")


def _was_repeated_failure(proofs: Sequence[Proof]) -> bool:
    """Whether the latest test failed, of a release that had failed its test before, too."""
    if not proofs or proofs[-1].ok:
        return False
    earlier = [one for one in proofs[:-1] if one.release == proofs[-1].release]
    return bool(earlier) and not earlier[-1].ok
