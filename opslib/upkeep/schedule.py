"""The jobs in the user's crontab: which lines, put in or taken out as one marked block."""

import difflib
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path

from opslib.core.accounts import account_home, account_name
from opslib.core.config import Config, check_experiment, find_nearest
from opslib.core.errors import InputError
from opslib.core.formatting import utc_now
from opslib.core.plans import Action, Plan
from opslib.upkeep import crontab
from opslib.upkeep.jobs import JOBS, Job, Place

_SHELLS = frozenset({"sh", "bash", "dash", "ksh", "zsh"})
_ASSIGNMENT = re.compile(r"^\s*(SHELL|CRON_TZ)\s*=(.*)$", re.MULTILINE)
_DAEMONS = frozenset({"cron", "crond"})


@dataclass(frozen=True)
class Entry:
    """A job as cron is told of it: the shell command it starts and the log this appends to."""

    job: Job
    expression: str | None
    command: str
    log: Path

    @property
    def line(self) -> str:
        """The crontab's line."""
        return f"{self.expression} {crontab.escape_command(self.command)}"


@dataclass(frozen=True)
class Edit:
    """A change of the crontab, decided before anything is touched."""

    config: Config
    verb: str
    why: str
    old: str
    new: str

    @property
    def differences(self) -> list[str]:
        """The lines that change, `- ` before those that go and `+ ` before those that come."""
        compared = difflib.ndiff(self.old.splitlines(), self.new.splitlines())
        return [line for line in compared if line.startswith(("- ", "+ "))]

    def plan(self) -> Plan:
        """Return the change as a plan: one step, or none."""
        title = f"crontab of {account_name()}"
        if self.new == self.old:
            return Plan(title)
        backups = self.config.logs_dir
        write = partial(crontab.replace_crontab, self.old, self.new, backups)
        change = Action(self.verb, f"the block of {self.config.source}", self.why, write)
        return Plan(title, (change, *crontab.plan_backups(backups, utc_now())))


def find_place(executable: str) -> Place:
    """Return where this checkout's programs are, given the Python that runs."""
    return Place(root=Path(__file__).resolve().parents[2], bin=Path(executable).absolute().parent)


def make_entries(config: Config, place: Place) -> tuple[Entry, ...]:
    """Return every job's entry; one that is off has no expression.

    The configuration is named where cron, which starts jobs from home, would find another.
    """
    nearest = find_nearest(account_home(), place.root)
    named = [] if nearest == config.source else ["--config", str(config.source)]
    entries = []
    for job in JOBS:
        program: tuple[str, ...] = (place.pillops, "schedule", "run", job.name)
        if job.is_direct:
            (program,) = job.commands(place, config, utc_now())
        log = config.logs_dir / job.log
        command = f"{shlex.join([*program, *named])} >> {shlex.quote(str(log))} 2>&1"
        entries.append(Entry(job, getattr(config.schedule, job.name), command, log))
    return tuple(entries)


def block_text(config: Config, place: Place) -> str:
    """Return the block of this configuration's jobs as it stands in the crontab. Raises
    `InputError` where a path cannot be written on one line."""
    lines = [entry.line for entry in make_entries(config, place) if entry.expression]
    note = f"# experiment {config.exp_dir}; written by `pillops schedule install`, which overwrites"
    block = crontab.make_block(str(config.source), [note, *lines])
    if len(block.splitlines()) != len(lines) + 3 or "\0" in block:
        raise InputError(f"{config.source}: a path with a line end cannot stand in a crontab")
    return block


def edit_to_install(config: Config, place: Place) -> Edit:
    """Return the change that puts this configuration's jobs into the crontab. Raises `ConfigError`
    where the experiment does not exist; `OpsError`, see `read_crontab` and `take_apart`."""
    check_experiment(config)
    old = crontab.read_crontab()
    new = crontab.take_apart(old, str(config.source)).with_block(block_text(config, place))
    return Edit(config, "write", "cron starts each job at its time", old, new)


def edit_to_remove(config: Config) -> Edit:
    """Return the change that takes this configuration's jobs out of the crontab."""
    old = crontab.read_crontab()
    new = crontab.take_apart(old, str(config.source)).without_block()
    return Edit(config, "remove", "cron starts none of its jobs any more", old, new)


def crontab_notes(config: Config, text: str) -> list[str]:
    """Return what in the crontab `text` above the block would change how the jobs run."""
    notes = []
    for name, value in _ASSIGNMENT.findall(crontab.take_apart(text, str(config.source)).before):
        value = value.strip().strip("\"'")
        if name == "SHELL" and Path(value).name not in _SHELLS:
            notes.append(f"warning: the crontab sets SHELL={value}; the jobs are written for sh")
        if name == "CRON_TZ":
            notes.append(f"note: the crontab sets CRON_TZ={value}; a cron that knows it goes by it")
    return notes


def next_run(expression: str, now: datetime) -> datetime:
    """Return when cron starts a job next, in the time zone of `now`."""
    from cronsim import CronSim

    moment: datetime = next(CronSim(expression, now))
    return moment


def in_words(expression: str) -> str:
    """Return a cron expression as a person says it."""
    from cronsim import CronSim

    words: str = CronSim(expression, utc_now()).explain()
    return words[0].lower() + words[1:]


def host_zone() -> tuple[tzinfo, str]:
    """Return the host's time zone, by which cron goes, and its name."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    name = str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")[2]
    try:
        return ZoneInfo(name), name
    except (ZoneInfoNotFoundError, ValueError):
        offset = datetime.now().astimezone()
        return offset.tzinfo or utc_now().tzinfo, f"UTC{offset:%z}"  # type: ignore[return-value]


def is_cron_running() -> bool:
    """Return whether a cron daemon runs on this host."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if comm.read_text().strip() in _DAEMONS:
                return True
    return False
