"""What a run leaves behind beside its report: `run.json`."""

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from opslib.core.cards import FileEntry
from opslib.core.errors import ExitCode
from opslib.core.files import sha256_file
from opslib.core.language import mark
from opslib.core.lineage import Lineage
from opslib.core.records import Part, Record
from opslib.core.served import ServedNote
from opslib.core.verdicts import VERDICT_EXIT_CODES, Verdict
from opslib.telling.scraps import Scrap

RUN_FILE = "run.json"
LOG_FILE = "kernel.log"
RunStatus = Literal[
    "finished",
    "cell_raised",
    "timeout",
    "kernel_died",
    "no_kernel",
    "terminated",
    "storage",
    "secret_leak",
    "report_failed",
]
_STATUSES: dict[RunStatus, tuple[str, ExitCode]] = {
    "finished": (mark("Finished"), ExitCode.PASS),
    "cell_raised": (mark("Failed"), ExitCode.CELL_RAISED),
    "timeout": (mark("Timed out"), ExitCode.DEADLINE),
    "kernel_died": (mark("Kernel died"), ExitCode.KERNEL_DIED),
    "no_kernel": (mark("No kernel"), ExitCode.NO_KERNEL),
    "terminated": (mark("Terminated"), ExitCode.TERMINATED),
    "storage": (mark("Disk full"), ExitCode.USAGE),
    "secret_leak": (mark("Secret found"), ExitCode.SECRET_LEAK),
    "report_failed": (mark("No page"), ExitCode.CELL_RAISED),
}
NO_VERDICT = mark("The notebook ran to its end and published no verdict.")
STATUS_EXIT_CODES = {status: code for status, (_, code) in _STATUSES.items()}


class RunProblem(Part):
    """Why a run did not finish: one line, and the code cell (counted from 1) it ended in."""

    message: str
    cell: int | None = None


class RunChange(Part):
    """What changed since the comparable runs, of which the newest is named, counted over the rows
    of the records. `attribution` says where a change comes from, where that is known."""

    against_id: str
    against_path: str
    better: int
    worse: int
    unchanged: int
    not_comparable: int
    summary: str
    attribution: str | None = None


class RunRecord(Record):
    """How one run of a notebook went, under which conditions, and what it left behind.

    `started` and `ended` are ISO 8601 in UTC; `changed_parameters` names those that differ from
    the notebook's own values; `evidence` says which model, images, providers and seed stand
    behind the figures; `record` is the file name of the operation's record in the run's folder;
    `served` is the model that was in service here when the run ended.
    """

    schema_name = "run"

    id: str
    notebook: str
    title: str
    status: RunStatus
    exit_code: int
    verdict: Verdict | None = None
    finding: str | None = None
    problem: RunProblem | None = None
    started: str
    ended: str
    duration_s: float
    parameters: dict[str, Any]
    changed_parameters: tuple[str, ...]
    notebook_sha256: str | None = None
    lineage: Lineage | None = None
    evidence: dict[str, str] = {}
    key_figures: tuple[Scrap, ...] = ()
    change: RunChange | None = None
    record: str | None = None
    served: ServedNote | None = None
    files: tuple[FileEntry, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether every cell ran and the verdict is no failure."""
        return self.status == "finished" and self.exit_code == ExitCode.PASS

    @property
    def word(self) -> str:
        """The one word that answers how the run went, its verdict or how it ended; in English, and
        translated where it is shown."""
        if self.status == "finished" and self.verdict is not None:
            return self.verdict.capitalize()
        return _STATUSES[self.status][0]

    @property
    def tone(self) -> str:
        """The colour class of the word: `pass`, `fail`, `inconclusive` or `plain`."""
        if self.status != "finished":
            return "fail"
        return self.verdict or "plain"

    @property
    def sentence(self) -> str:
        """The one sentence a reader needs: the problem of a failed run, else its finding."""
        if self.problem is not None:
            return self.problem.message
        return self.finding or NO_VERDICT

    @property
    def report_name(self) -> str:
        """The file name of the HTML report."""
        return f"{self.notebook}.html"


def read_headline(scraps: dict[str, Scrap]) -> dict[str, Any]:
    """Return a run's verdict, finding and key figures (single numbers) by their names in its
    record."""
    verdict, finding = (
        scraps[name].value if name in scraps else None for name in ("verdict", "finding")
    )
    return {
        "verdict": verdict if str(verdict) in VERDICT_EXIT_CODES else None,
        "finding": str(finding) if finding else None,
        "key_figures": tuple(
            scrap
            for name, scrap in scraps.items()
            if isinstance(scrap.value, int | float)
            and not isinstance(scrap.value, bool)
            and name != "exit_code"
        ),
    }


def utc_text(moment: datetime) -> str:
    """Return an aware moment as `2026-11-23T15:46:01Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def list_run_files(folder: Path) -> tuple[FileEntry, ...]:
    """Return name, size and digest of every file of a run's folder but `run.json`."""
    return tuple(
        FileEntry(path=path.name, size=path.stat().st_size, sha256=sha256_file(path))
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != RUN_FILE and not path.name.startswith(".")
    )
