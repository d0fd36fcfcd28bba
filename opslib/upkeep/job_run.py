"""Running a scheduled job: its lock, its commands in order, a deadline, an account of the end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from opslib.core.accounts import account_home, account_name
from opslib.core.config import CONFIG_VARIABLE, Config, check_experiment
from opslib.core.deadline import wait_or_end
from opslib.core.errors import DeadlineError, ExitCode, UsageError
from opslib.core.formatting import format_duration, utc_now
from opslib.core.locks import hold_lock
from opslib.core.ownership import make_folder
from opslib.upkeep.job_status import RAN_WELL, jobs_dir, track_job
from opslib.upkeep.jobs import Command, Job, Place

# cron's own PATH is /usr/bin:/bin; the last one holds nvidia-smi under WSL.
_STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/wsl/lib"
_GRACE_S = 20.0


def run_job(config: Config, job: Job, place: Place, *, show: Callable[[str], None]) -> int:
    """Run the job's commands one after the other and return the exit code of the first that did
    not pass, or 0.

    Raises:
        BusyError: the same job is under way.
        DeadlineError: it took longer than `schedule.timeout_s` and was ended.
        ConfigError: the experiment does not exist.
    """
    check_experiment(config)
    moment = utc_now()
    commands = job.commands(place, config, moment)
    if job.is_direct:  # it keeps its own lock and account
        return _run_commands(commands, config, place, None, show)

    def work() -> int:
        with suppress(OSError):  # a job that needs it says so; one that watches goes on
            make_folder(config.report_dir)
        give_up = time.monotonic() + config.schedule.timeout_s
        return _run_commands(commands, config, place, give_up, show)

    with hold_lock(jobs_dir(config) / f"{job.name}.lock", f"the scheduled {job.name}"):
        return track_job(config, job.name, work, show=show)


def run_as_cron(command: str) -> int:
    """Run a crontab's command as cron does: by `sh`, from home, with next to no environment.

    Returns:
        The command's exit code.
    """
    home = account_home()
    bare = {
        "HOME": str(home),
        "LOGNAME": account_name(),
        "PATH": "/usr/bin:/bin",
        "SHELL": "/bin/sh",
    }
    cwd = home if home.is_dir() else "/"
    return _wait(["/bin/sh", "-c", command], cwd=cwd, environment=bare, give_up=None)


def _run_commands(
    commands: Sequence[Command],
    config: Config,
    place: Place,
    give_up: float | None,
    show: Callable[[str], None],
) -> int:
    path = os.environ.get("PATH", "")
    environment = {
        **os.environ,
        CONFIG_VARIABLE: str(config.source),
        "PATH": ":".join(filter(None, (str(place.bin), path, _STANDARD_PATH))),
    }
    first = int(ExitCode.PASS)
    for command in commands:
        shown = " ".join(command)
        show(f"{utc_now():%Y-%m-%d %H:%M:%S} UTC: {shown}")
        clock = time.monotonic()
        code = _wait(command, cwd=place.root, environment=environment, give_up=give_up)
        took = format_duration(time.monotonic() - clock)
        show(f"{utc_now():%Y-%m-%d %H:%M:%S} UTC: ended with {code} after {took}")
        first = first or code
        if code not in RAN_WELL:
            break
    return first


def _wait(
    command: Sequence[str],
    *,
    cwd: Path | str,
    environment: Mapping[str, str],
    give_up: float | None,
) -> int:
    """Run a command in a session of its own, so that whatever it started ends with it."""
    left_s = None if give_up is None else max(0.0, give_up - time.monotonic())
    try:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise UsageError(f"{command[0]}: cannot be started: {error.strerror}") from error
    try:
        code = wait_or_end(process, left_s, _GRACE_S)
    except subprocess.TimeoutExpired as error:
        raise DeadlineError(f"{' '.join(command)}: ended: schedule.timeout_s is over") from error
    return code if code >= 0 else 128 - code
