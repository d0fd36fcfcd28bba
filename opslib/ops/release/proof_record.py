"""What a restore test, and a run of the rota, found out: step by step, with the answer."""

from __future__ import annotations

from opslib.core.errors import ExitCode
from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import VERDICT_EXIT_CODES, Verdict
from opslib.ops.release.proofs import Proof

_WORST_FIRST: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")


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
        took = f"{self.proof.took_s:.1f} s"
        if self.verdict == "fail":
            return f"{self.release} does not restore: {self.proof.problem}"
        if self.verdict == "inconclusive":
            return f"{self.release} restores and serves in {took}, but {self.proof.note}"
        return f"{self.release} restores, serves both ways and answers as promised, in {took}"

    @property
    def exit_code(self) -> ExitCode:
        """What a command that proved this release alone ends with."""
        return VERDICT_EXIT_CODES[self.verdict]


class RotaRecord(Record):
    """What one run of the rota proved, and how much of the store was ever proved before and after.

    `unproved_before` and `unproved_after` are the releases without a last test that proves them.
    `planned` are those that a dry run would have tested.
    """

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
        verdicts = {one.verdict for one in self.tests}
        if "fail" in verdicts:
            return "fail"
        return "inconclusive" if "inconclusive" in verdicts or not verdicts else "pass"

    @property
    def finding(self) -> str:
        """The answer in one sentence; failed releases first."""
        if not self.tests:
            turns = f"; the next turn: {', '.join(self.planned)}" if self.planned else ""
            return f"Dry run: nothing was made, restored or tested{turns}"
        by = {word: [one for one in self.tests if one.verdict == word] for word in _WORST_FIRST}
        parts = [one.finding for word in ("fail", "inconclusive") for one in by[word]]
        sound = by["pass"]
        if len(sound) == 1:
            parts.append(sound[0].finding)
        elif sound:
            took = ", ".join(f"{one.release} in {one.proof.took_s:.1f} s" for one in sound)
            parts.append(
                f"{len(sound)} releases restore, serve both ways and answer as promised: {took}"
            )
        return "; ".join(parts)

    @property
    def exit_code(self) -> ExitCode:
        """What a command or notebook ends with."""
        return VERDICT_EXIT_CODES[self.verdict]
