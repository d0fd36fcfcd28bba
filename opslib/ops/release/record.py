"""What restore tests found out, step by step, and the history of them: which release was proved
when, and how it went."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from opslib.core.config import Config
from opslib.core.errors import ExitCode, InputError
from opslib.core.language import tr
from opslib.core.lineage import Lineage
from opslib.core.locks import hold_lock
from opslib.core.records import Part, Record
from opslib.core.verdicts import VERDICT_EXIT_CODES, Verdict

PROOFS_NAME = "proofs.json"
_LOCK_WAIT_S = 10.0

Standing = Literal["never proved", "proved", "failed", "not asked"]
# The worst first.
_BAD: dict[Verdict, Standing] = {"fail": "failed", "inconclusive": "not asked"}
_STANDINGS: dict[Verdict, Standing] = {**_BAD, "pass": "proved"}


class Proof(Part):
    """One restore test of one release. `stages` are those gone through, in order. `problem` says
    why it failed; `note` what could not be asked, such as golden answers of a model without a card.
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
        return "fail" if not self.ok else "inconclusive" if self.note else "pass"

    @property
    def standing(self) -> Standing:
        """What a release is by this test, its last one; `not asked` is not proved."""
        return _STANDINGS[self.verdict]


class ProofHistory(Record):
    """All restore tests in the order in which they ended."""

    schema_name = "release-proofs"

    proofs: tuple[Proof, ...] = ()


class ProofStep(Part):
    """One step of a restore test: what it found, or why it failed, and how long it took."""

    name: str
    ok: bool
    found: str
    took_s: float


class ProofRecord(Record):
    """One restore test of one release, from its first byte to an answer over HTTP."""

    schema_name = "release-proof"

    lineage: Lineage
    release: str
    size_bytes: int
    model: str | None = None
    model_sha256: str | None = None
    steps: tuple[ProofStep, ...]
    proof: Proof

    @property
    def verdict(self) -> Verdict:
        """Whether the release restores: `pass`, `fail`, `inconclusive`."""
        return self.proof.verdict

    @property
    def finding(self) -> str:
        """The answer in one sentence."""
        release, took_s = self.release, self.proof.took_s
        if self.verdict == "fail":
            return tr(
                "{release} does not restore: {problem}", release=release, problem=self.proof.problem
            )
        if self.verdict == "inconclusive":
            return tr(
                "{release} restores and serves in {seconds:.1f} s, but {note}",
                release=release,
                seconds=took_s,
                note=self.proof.note,
            )
        return tr(
            "{release} restores, serves both ways and answers as promised, in {seconds:.1f} s",
            release=release,
            seconds=took_s,
        )

    @property
    def exit_code(self) -> ExitCode:
        """What a command that proved this release alone ends with."""
        return VERDICT_EXIT_CODES[self.verdict]


class RotaRecord(Record):
    """What one run of the rota proved, and how much of the store was ever proved before and after.
    `unproved_before` and `unproved_after` are the releases without a last test that proves them.
    `planned` are those that a dry run would have tested."""

    schema_name = "release-rota"

    lineage: Lineage
    releases: tuple[str, ...]
    unproved_before: tuple[str, ...]
    unproved_after: tuple[str, ...]
    tests: tuple[ProofRecord, ...] = ()
    planned: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """`fail` where one failed, else `inconclusive` where one could not be asked, or none was
        tested, else `pass`."""
        verdicts = {one.verdict for one in self.tests} or {"inconclusive"}
        return next(word for word in _STANDINGS if word in verdicts)

    @property
    def finding(self) -> str:
        """The answer in one sentence; failed releases first."""
        if not self.tests:
            told = tr("Dry run: nothing was made, restored or tested")
            if not self.planned:
                return told
            return tr(
                "{told}; the next turn: {releases}", told=told, releases=", ".join(self.planned)
            )
        sound = [one for one in self.tests if one.verdict == "pass"]
        ordered = sorted(self.tests, key=lambda one: list(_STANDINGS).index(one.verdict))
        parts = [one.finding for one in ordered if one.verdict != "pass" or len(sound) == 1]
        if len(sound) > 1:
            took = ", ".join(
                tr("{release} in {seconds:.1f} s", release=one.release, seconds=one.proof.took_s)
                for one in sound
            )
            parts.append(
                tr(
                    "{count} releases restore, serve both ways and answer as promised: {releases}",
                    count=len(sound),
                    releases=took,
                )
            )
        return "; ".join(parts)

    @property
    def exit_code(self) -> ExitCode:
        """What a command or notebook ends with."""
        return VERDICT_EXIT_CODES[self.verdict]


def proofs_path(config: Config) -> Path:
    """Return where the history is kept, `{releases_dir}/proofs.json`."""
    return config.releases_dir / PROOFS_NAME


def read_proofs(config: Config) -> tuple[Proof, ...]:
    """Return all restore tests, the oldest first; none where nothing was ever proved. Raises
    InputError: the history cannot be read; the message says what to do."""
    path = proofs_path(config)
    if not os.path.lexists(path):
        return ()
    try:
        return ProofHistory.read(path).proofs
    except InputError as error:
        remedy = "move it away to start a new history (every release then counts as never proved)"
        raise InputError(f"{error}; {remedy}") from error


def add_proof(config: Config, proof: Proof) -> Path:
    """Append `proof` to the history and return the history's path. Raises BusyError: another
    process holds the history; InputError: the history cannot be read; StorageError: it cannot be
    written."""
    path = proofs_path(config)
    with hold_lock(path.with_suffix(".lock"), "the history of proofs", wait_s=_LOCK_WAIT_S):
        return ProofHistory(proofs=(*read_proofs(config), proof)).write(path)


def proofs_of(proofs: Iterable[Proof], name: str, content: str | None = None) -> tuple[Proof, ...]:
    """Return the proofs of a release, the oldest first. A proof of other content under the same
    name is no proof of this release."""
    meant = (content, None) if content is not None else None
    own = (one for one in proofs if one.release == name)
    return tuple(one for one in own if meant is None or one.content_id in meant)


def describe_last(proofs: Iterable[Proof], release: str) -> str:
    """Return when a release was proved, as a date; `never`, or how else its last test ended."""
    last = next(reversed(proofs_of(proofs, release)), None)
    if last is None:
        return "never"
    word = {"proved": "", "failed": "FAILED "}.get(last.standing, f"{last.standing} ")
    return f"{word}{last.proved_at_utc[:10]}"
