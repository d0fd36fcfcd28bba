"""The record of an acceptance walk: nine steps, each with its command, its answer, its evidence."""

from typing import Literal

from opslib.core.language import tr, tr_many
from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict

StepState = Literal["pass", "fail", "not run"]


class AcceptanceStep(Part):
    """One step: what was asked, the command that answered, how it went and what was seen."""

    number: int
    title: str
    command: str
    state: StepState
    took_s: float
    evidence: str


class AcceptanceRecord(Record):
    """A finished walk; `external` says what stood in for the address outside, if anything did."""

    schema_name = "acceptance"

    experiment: str
    external: str
    steps: tuple[AcceptanceStep, ...]
    lineage: Lineage

    @property
    def verdict(self) -> Verdict:
        """Pass where every step passed; one that could not be run leaves it open."""
        states = {step.state for step in self.steps}
        if "fail" in states:
            return "fail"
        return "inconclusive" if "not run" in states else "pass"

    @property
    def finding(self) -> str:
        """The walk in one sentence."""
        total = len(self.steps)
        if self.verdict == "pass":
            return tr(
                "All {steps} steps of the acceptance walk passed on {experiment}.",
                steps=total,
                experiment=self.experiment,
            )
        open_ones = [step for step in self.steps if step.state != "pass"]
        named = "; ".join(
            tr(
                "step {number}, {title}: {evidence}",
                number=one.number,
                title=one.title,
                evidence=one.evidence,
            )
            for one in open_ones
        )
        return tr_many(
            "{done} of {count} step passed on {experiment}. Open: {steps}.",
            "{done} of {count} steps passed on {experiment}. Open: {steps}.",
            total,
            done=total - len(open_ones),
            experiment=self.experiment,
            steps=named,
        )
