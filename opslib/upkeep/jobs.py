"""The scheduled jobs: which commands each runs, one after the other, locked and with a deadline."""

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opslib.core.accounts import account_home, account_name
from opslib.core.config import Config, check_experiment
from opslib.core.deadline import NotEndedError, run_or_end
from opslib.core.errors import DeadlineError, ParameterError, UsageError
from opslib.core.formatting import format_duration, utc_now
from opslib.core.locks import hold_lock
from opslib.core.overrides import CONFIG_VARIABLE
from opslib.core.ownership import make_folder
from opslib.upkeep.job_status import RAN_WELL, jobs_dir, track_job

Command = tuple[str, ...]
# cron's own PATH is /usr/bin:/bin; the last one holds nvidia-smi under WSL.
_STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/wsl/lib"
_GRACE_S = 20.0


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
    folder = config.report_dir / f"{moment:%Y-%m-%d}" / f"{moment:%H%M%S}-01_bench-papermill"
    source, out = (str(one / "01_bench.ipynb") for one in (place.root / "notebooks", folder))
    papermill = str(place.bin / "papermill")
    return (
        ("mkdir", "-p", str(folder)),
        (papermill, source, out, "-p", "config_path", str(config.source)),
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
    """Return the job called `name`; `ParameterError` where there is none."""
    jobs = {job.name: job for job in JOBS}
    if name not in jobs:
        raise ParameterError(f"{name!r}: no such job; allowed: {', '.join(jobs)}")
    return jobs[name]


def run_job(config: Config, job: Job, place: Place, *, show: Callable[[str], None]) -> int:
    """Run the job's commands one after the other and return the exit code of the first that did not
    pass, or 0. Raises `BusyError` where the same job is under way; `DeadlineError` where it took
    longer than `schedule.timeout_s` and was ended; `ConfigError` where the experiment does not
    exist."""
    check_experiment(config)
    commands = job.commands(place, config, utc_now())
    path = (str(place.bin), os.environ.get("PATH", ""), _STANDARD_PATH)
    told = {CONFIG_VARIABLE: str(config.source), "PATH": ":".join(filter(None, path))}

    def run(give_up: float | None = None) -> int:
        first = 0
        for command in commands:
            show(f"{utc_now():%F %T} UTC: {' '.join(command)}")
            clock = time.monotonic()
            left_s = None if give_up is None else max(0.0, give_up - clock)
            code = _run_command(command, place.root, {**os.environ, **told}, left_s)
            took = format_duration(time.monotonic() - clock)
            show(f"{utc_now():%F %T} UTC: ended with {code} after {took}")
            first = first or code
            if code not in RAN_WELL:
                break
        return first

    def work() -> int:
        with suppress(OSError):  # a job that needs it says so; one that watches goes on
            make_folder(config.report_dir)
        return run(time.monotonic() + config.schedule.timeout_s)

    if job.is_direct:
        return run()
    with hold_lock(jobs_dir(config) / f"{job.name}.lock", f"the scheduled {job.name}"):
        return track_job(config, job.name, work, show=show)


def run_as_cron(command: str) -> int:
    """Run a crontab's command as cron does, by `sh`, from home, with next to no environment, and
    return its exit code."""
    home = account_home()
    bare = {
        "HOME": str(home),
        "LOGNAME": account_name(),
        "PATH": "/usr/bin:/bin",
        "SHELL": "/bin/sh",
    }
    return _run_command(("/bin/sh", "-c", command), home if home.is_dir() else Path("/"), bare)


def _run_command(
    command: Command, cwd: Path, environment: dict[str, str], left_s: float | None = None
) -> int:
    try:
        code = run_or_end(command, left_s, _GRACE_S, cwd=cwd, env=environment)
    except OSError as error:
        raise UsageError(f"{command[0]}: cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        how = "could not be ended" if isinstance(error, NotEndedError) else "ended"
        raise DeadlineError(f"{' '.join(command)}: {how}: schedule.timeout_s is over") from error
    return code if code >= 0 else 128 - code
