"""The scheduled jobs: which commands each runs, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import ParameterError

Command = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where the jobs' programs are: the checkout and the environment's `bin` folder."""

    root: Path
    bin: Path

    @property
    def pillops(self) -> str:
        """The command line's own program."""
        return str(self.bin / "pillops")

    def script(self, name: str) -> Command:
        """The command of a script, told of its Python where that is not the checkout's own."""
        words = ("bash", str(self.root / "scripts" / name))
        if self.bin == self.root / ".venv" / "bin":
            return words
        return ("env", f"PILLSNAP_PYTHON={self.bin / 'python'}", *words)


@dataclass(frozen=True)
class Job:
    """A job: its key in the `schedule` section and its commands at a moment.

    `log` is the file in `{exp_dir}/logs` that cron appends its output to. A job that keeps its own
    lock and account is started by cron directly, others by `pillops schedule run`.
    """

    name: str
    log: str
    commands: Callable[[Place, Config, datetime], tuple[Command, ...]]
    is_direct: bool = False


def _bench(place: Place, config: Config, moment: datetime) -> tuple[Command, ...]:
    name = "01_bench"
    folder = config.report_dir / f"{moment:%Y-%m-%d}" / f"{moment:%H%M%S}-{name}-papermill"
    source, out = place.root / "notebooks" / f"{name}.ipynb", folder / f"{name}.ipynb"
    execute = (str(place.bin / "papermill"), str(source), str(out))
    return (
        ("mkdir", "-p", str(folder)),
        (*execute, "-p", "config_path", str(config.source)),
        (place.pillops, "report", "index"),
    )


JOBS: tuple[Job, ...] = (
    Job("maintenance", "cron_maint.out", lambda at, *_: (at.script("maintenance.sh"),), True),
    Job("index", "cron_index.out", lambda at, *_: ((at.pillops, "report", "index"),)),
    Job(
        "release",
        "cron_release.out",
        lambda at, *_: (at.script("backup_release.sh"), (at.pillops, "release", "prove")),
    ),
    Job("bench", "cron_bench.out", _bench),
    Job("drill", "cron_drill.out", lambda at, *_: ((at.pillops, "run", "05_rollback_drill"),)),
    Job("health", "cron_health.out", lambda at, *_: ((at.pillops, "health", "watch"),)),
)


def find_job(name: str) -> Job:
    """Return the job called `name`.

    Raises:
        ParameterError: there is none.
    """
    found = next((job for job in JOBS if job.name == name), None)
    if found is None:
        allowed = ", ".join(job.name for job in JOBS)
        raise ParameterError(f"{name!r}: no such job; allowed: {allowed}")
    return found
