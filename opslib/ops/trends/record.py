"""What a look at the trends leaves behind: one row for each figure."""

from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.verdicts import Verdict
from opslib.timing.steps import FEWEST_RUNS


class TrendStep(Part):
    """A step in a figure's level: the place among the runs, the day and the run it came with, the
    level before and after, its size in words, whether it is for the better, whether it was first
    told by the runs of the days that were asked for, and what else changed between the runs."""

    at: int
    day: str
    run: str
    before: float
    after: float
    change: str
    better: bool
    recent: bool
    changed: tuple[str, ...]


class TrendRow(Part):
    """One figure of one notebook on one host; `page` is its page below the report folder."""

    notebook: str
    label: str
    host: str
    unit: str | None
    page: str
    values: tuple[float, ...]
    days: tuple[str, ...]
    steps: tuple[TrendStep, ...]

    @property
    def can_tell(self) -> bool:
        """Whether there are runs enough for a step to be told."""
        return len(self.values) >= FEWEST_RUNS

    @property
    def name(self) -> str:
        """The figure and where it comes from."""
        return f"{self.label} ({self.notebook}, {self.host})"

    @property
    def recent(self) -> list[TrendStep]:
        """The steps of the days that were asked for."""
        return [step for step in self.steps if step.recent]


class TrendsRecord(Record):
    """All trends of a report folder. `fail` where a figure became worse within `days`;
    `inconclusive` where no figure has runs enough to tell, or none was measured within `days`."""

    schema_name = "trends"

    verdict: Verdict
    finding: str
    exit_code: int
    lineage: Lineage
    days: float
    rows: tuple[TrendRow, ...]
