"""The history of restore tests: which release was proved when, and how it went."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.locks import hold_lock
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict

PROOFS_NAME = "proofs.json"
_LOCK_WAIT_S = 10.0

Standing = Literal["never proved", "proved", "failed", "not asked"]
_STANDINGS: dict[Verdict, Standing] = {
    "pass": "proved",
    "fail": "failed",
    "inconclusive": "not asked",
}


class Proof(Part):
    """One restore test of one release.

    `stages` are those gone through, in order. `problem` says why it failed; `note` what could not
    be asked, such as golden answers of a model without a card.
    """

    release: str
    content_id: str | None
    proved_at_utc: str
    ok: bool
    stages: tuple[str, ...] = ()
    problem: str | None = None
    note: str | None = None
    took_s: float

    @property
    def verdict(self) -> Verdict:
        """`pass`, `fail`, or `inconclusive` where it was restored and served without a question
        to ask it."""
        if not self.ok:
            return "fail"
        return "inconclusive" if self.note else "pass"

    @property
    def standing(self) -> Standing:
        """What a release is by this test, its last one; `not asked` is not proved."""
        return _STANDINGS[self.verdict]


class ProofHistory(Record):
    """All restore tests in the order in which they ended."""

    schema_name = "release-proofs"

    proofs: tuple[Proof, ...] = ()


def proofs_path(config: Config) -> Path:
    """Return where the history is kept, `{releases_dir}/proofs.json`."""
    return config.releases_dir / PROOFS_NAME


def read_proofs(config: Config) -> tuple[Proof, ...]:
    """Return all restore tests, the oldest first; none where nothing was ever proved.

    Raises:
        InputError: the history cannot be read; the message says what to do.
    """
    path = proofs_path(config)
    if not os.path.lexists(path):
        return ()
    try:
        return ProofHistory.read(path).proofs
    except InputError as error:
        raise InputError(
            f"{error}; move it away to start a new history (every release then counts as never "
            "proved)"
        ) from error


def add_proof(config: Config, proof: Proof) -> Path:
    """Append `proof` to the history and return the history's path.

    Raises:
        BusyError: another process holds the history.
        InputError: the history cannot be read.
        StorageError: it cannot be written.
    """
    path = proofs_path(config)
    with hold_lock(path.with_suffix(".lock"), "the history of proofs", wait_s=_LOCK_WAIT_S):
        return ProofHistory(proofs=(*read_proofs(config), proof)).write(path)


def proofs_of(
    proofs: Iterable[Proof], release: str, content_id: str | None = None
) -> tuple[Proof, ...]:
    """Return the proofs of a release, the oldest first.

    A proof of other content under the same name is no proof of this release.
    """
    return tuple(
        one
        for one in proofs
        if one.release == release
        and (content_id is None or one.content_id is None or one.content_id == content_id)
    )


def describe_last(proofs: Iterable[Proof], release: str) -> str:
    """Return when a release was proved, as a date; `never`, or how else its last test ended."""
    last = next(reversed(proofs_of(proofs, release)), None)
    if last is None:
        return "never"
    word = {"proved": "", "failed": "FAILED "}.get(last.standing, f"{last.standing} ")
    return f"{word}{last.proved_at_utc[:10]}"
