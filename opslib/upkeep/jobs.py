"""The scheduled jobs: which commands each runs, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import ParameterError
from opslib.core.formatting import stamp

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


def _script(place: Place, name: str) -> Command:
    """The command of a script, told of its Python where that is not the checkout's own."""
    words = ("bash", str(place.root / "scripts" / name))
    if place.bin == place.root / ".venv" / "bin":
        return words
    return ("env", f"PILLSNAP_PYTHON={place.bin / 'python'}", *words)


def _maintenance(place: Place, _config: Config, _moment: datetime) -> tuple[Command, ...]:
    return (_script(place, "maintenance.sh"),)


def _release(place: Place, _config: Config, _moment: datetime) -> tuple[Command, ...]:
    return (_script(place, "backup_release.sh"), (place.pillops, "release", "prove"))


def _bench(place: Place, config: Config, moment: datetime) -> tuple[Command, ...]:
    name = "01_bench"
    day, _, clock = stamp(moment).partition("-")
    folder = config.report_dir / f"{day[:4]}-{day[4:6]}-{day[6:]}" / f"{clock}-{name}-papermill"
    source, out = place.root / "notebooks" / f"{name}.ipynb", folder / f"{name}.ipynb"
    execute = (str(place.bin / "papermill"), str(source), str(out))
    return (
        ("mkdir", "-p", str(folder)),
        (*execute, "-p", "config_path", str(config.source)),
        (place.pillops, "report", "index"),
    )


def _drill(place: Place, _config: Config, _moment: datetime) -> tuple[Command, ...]:
    return ((place.pillops, "run", "05_rollback_drill"),)


def _index(place: Place, _config: Config, _moment: datetime) -> tuple[Command, ...]:
    return ((place.pillops, "report", "index"),)


def _health(place: Place, _config: Config, _moment: datetime) -> tuple[Command, ...]:
    return ((place.pillops, "health", "watch"),)


JOBS: tuple[Job, ...] = (
    Job("maintenance", "cron_maint.out", _maintenance, True),
    Job("index", "cron_index.out", _index),
    Job("release", "cron_release.out", _release),
    Job("bench", "cron_bench.out", _bench),
    Job("drill", "cron_drill.out", _drill),
    Job("health", "cron_health.out", _health),
)


def find_job(name: str) -> Job:
    """Return the job called `name`.

    Raises:
        ParameterError: there is none.
    """
    for job in JOBS:
        if job.name == name:
            return job
    allowed = ", ".join(job.name for job in JOBS)
    raise ParameterError(f"{name!r}: no such job; allowed: {allowed}")
