"""Restore tests by a rota that covers every release over time.

The order: a release whose last test failed, then one that was never tested, then the one whose
last test is longest ago.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.formatting import stamp
from opslib.core.lineage import record_lineage
from opslib.core.locks import hold_lock
from opslib.ops.release.proving import carry_out_proof
from opslib.ops.release.record import Proof, ProofRecord, RotaRecord, add_proof, read_proofs
from opslib.ops.release.signature import Demand
from opslib.ops.release.store import StoredRelease, list_releases
from opslib.ops.release.verify import Progress, silent

LOCK_NAME = ".restore-test.lock"


def choose_release(config: Config, *, without: Collection[str] = ()) -> StoredRelease:
    """Return the release whose turn it is (see `next_in_rota`); broken ones have turns too, so that
    they are reported. Raises InputError: there is none left to choose from, or the history cannot
    be read."""
    releases = {one.name: one for one in _list_testable(config) if one.name not in without}
    found = next_in_rota(list(releases), read_proofs(config))
    if found is None:
        none = f"{config.releases_dir}: no {'other ' if without else ''}release"
        raise InputError(f"{none}; make one with `pillops release create`")
    return releases[found]


def next_in_rota(names: Sequence[str], proofs: Sequence[Proof]) -> str | None:
    """Return the name of the release to test next, or None where there is none. A failed one comes
    back at once. Once that repeated test has failed as well, every other turn is for the rest, so
    that a release that stays broken keeps no other from being tested. `names`: the newest first, as
    never tested ones are taken; `proofs`: the history, the oldest first."""
    last = {one.release: (at, one.ok) for at, one in enumerate(proofs)}
    failed = [one for one in names if one in last and not last[one][1]]
    rest = [one for one in names if one not in failed]
    turn = failed if failed and not (rest and _was_repeated_failure(proofs)) else rest
    return min(turn, key=lambda one: last.get(one, (-1, True))[0], default=None)


def list_unproved(names: Iterable[str], proofs: Sequence[Proof]) -> tuple[str, ...]:
    """Return the names of the releases that their last test, if there was one, does not prove."""
    last = {one.release: one.standing for one in proofs}
    return tuple(one for one in names if last.get(one) != "proved")


def prove_release(
    config: Config,
    stored: StoredRelease,
    tell: Progress = silent,
    demand: Demand = "demanded",
) -> ProofRecord:
    """Test whether a release restores, keep the answer in the history, and return it. A release
    that does not restore is an answer, not an error. Raises BusyError: another restore test is
    under way; InputError: the history cannot be read; StorageError: the disk is full: that is no
    fault of the release."""
    lock = config.releases_dir / LOCK_NAME
    with hold_lock(lock, f"restore test of {stored.name}"):
        read_proofs(config)
        record = carry_out_proof(config, stored, tell, demand)
        if stored.path.resolve().parent == config.releases_dir.resolve():
            add_proof(config, record.proof)  # a copy elsewhere proves nothing of the store's own
    return record


def prove_by_rota(
    config: Config,
    *,
    first: StoredRelease | None = None,
    turns: int = 1,
    dry_run: bool = False,
    demand: Demand = "demanded",
    progress: Progress = silent,
) -> RotaRecord:
    """Test `first`, if given, then the releases of the next `turns`, each once, and return what was
    found; see `prove_release`. `demand` is for `first` alone, where it is given. `dry_run`: say
    whose turn it is, test nothing. Raises InputError: there is no release, or the history cannot be
    read."""
    store = tuple(one.name for one in _list_testable(config))
    before = list_unproved(store, read_proofs(config))
    chosen = [first] if first is not None else []
    tests: list[ProofRecord] = []
    for turn in range(len(chosen) + turns):
        done = {one.name for one in chosen[:turn]}
        if turn == len(chosen):
            if done >= {*store} and (store or dry_run):
                break
            chosen.append(choose_release(config, without=done))
        if not dry_run:
            own = demand if first is None or chosen[turn] is first else "demanded"
            tests.append(prove_release(config, chosen[turn], progress, own))
    return RotaRecord(
        lineage=record_lineage(),
        releases=store,
        unproved_before=before,
        unproved_after=list_unproved(store, read_proofs(config)),
        tests=tuple(tests),
        planned=tuple(one.name for one in chosen) if dry_run else (),
    )


def keep_rota(record: RotaRecord, config: Config, path: Path | None = None) -> Path:
    """Keep the record at `path`, by default `{exp_dir}/reports/release_rota_<UTC>.json`, and
    return the path."""
    return record.write(path or config.records_dir / f"release_rota_{stamp()}.json")


def _list_testable(config: Config) -> list[StoredRelease]:
    """The releases that have turns, the newest first: broken ones too, but not archives that are
    no releases by their name."""
    return [one for one in list_releases(config) if one.released_at_utc is not None]


def _was_repeated_failure(proofs: Sequence[Proof]) -> bool:
    """Whether the latest test failed, of a release that had failed its test before, too."""
    earlier = [one.ok for one in proofs if one.release == proofs[-1].release]
    return len(earlier) > 1 and not any(earlier[-2:])
