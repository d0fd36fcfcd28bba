"""The record of an acceptance walk: nine steps, each with its command, its answer, its evidence."""

from typing import Literal

from opslib.core.formatting import plural
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
            return f"All {total} steps of the acceptance walk passed on {self.experiment}."
        open_ones = [step for step in self.steps if step.state != "pass"]
        named = "; ".join(f"step {one.number}, {one.title}: {one.evidence}" for one in open_ones)
        done = total - len(open_ones)
        return f"{done} of {plural(total, 'step')} passed on {self.experiment}. Open: {named}."
