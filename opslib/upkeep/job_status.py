"""How a scheduled job's last run ended: a small file for each job, and a call to its dead man."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from opslib.core.config import Config
from opslib.core.errors import ExitCode, InputError, OpsError, ParameterError, TerminatedError
from opslib.core.formatting import format_duration, now_text
from opslib.core.language import tr
from opslib.core.records import Record
from opslib.core.secrets import resolve_reference
from opslib.core.web import check_address, tell

# A run that came to its end did its work: an inconclusive verdict or a skipped file is for the
# checklist to show, a dead man is for jobs that did not run.
RAN_WELL = frozenset({ExitCode.PASS, ExitCode.INCONCLUSIVE, ExitCode.SKIPPED})
_PING_TIMEOUT_S = 10.0
_PAUSES_S = (0.0, 1.0, 4.0)


class JobStatus(Record):
    """The last run of a job; without an end it is under way, or was cut off."""

    schema_name = "job-status"

    job: str
    pid: int
    started_at_utc: str
    ended_at_utc: str | None = None
    duration_s: float | None = None
    exit_code: int | None = None
    last_good_at_utc: str | None = None
    dead_man: str | None = None

    def describe(self) -> str:
        """Return how the run ended in a few words."""
        if self.exit_code is None:
            if is_running(self.pid):
                return tr("under way")
            return tr("cut off: it never said how it ended")
        took = format_duration(self.duration_s or 0.0)
        told = tr("{word} after {took}", word=_word(self.exit_code), took=took)
        return tr("{told}; dead man {how}", told=told, how=self.dead_man) if self.dead_man else told


def is_running(pid: int) -> bool:
    """Return whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


def jobs_dir(config: Config) -> Path:
    """Return the folder of the jobs' states and locks, `{exp_dir}/logs/jobs`."""
    return config.logs_dir / "jobs"


def status_path(config: Config, job: str) -> Path:
    """Return where the state of a job is kept."""
    return jobs_dir(config) / f"{job}.json"


def read_status(config: Config, job: str) -> JobStatus | None:
    """Return how the job's last run ended, or None where it never ran; `InputError` where the file
    cannot be read, or was emptied by a run that had no room to say how it went."""
    path = status_path(config, job)
    if not path.exists():
        return None
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty: there was no room to keep how its last run went")
    return JobStatus.read(path)


def keep_status(path: Path, status: JobStatus) -> str:
    """Keep how a run goes (see `Record.keep`); return '' or why that could not be kept.

    The last one is emptied then: what an earlier run said is never taken for this one's.
    """
    untold = status.keep(path)
    if untold:
        with suppress(OSError):
            os.truncate(path, 0)
    return untold


def track_job(
    config: Config, job: str, work: Callable[[], int], *, show: Callable[[str], None]
) -> int:
    """Run `work`, keep how it ended, tell the job's dead man, and return its exit code.

    An error of `work` is kept and told like a code, then raised again. A run that was turned away
    because another one is under way (6) leaves that one's account alone. Where there is no
    experiment `work` says so, and nothing is kept; an account for which there is no room is told to
    `show`, and stops nothing.
    """
    if not config.exp_dir.is_dir():
        return work()
    path, clock = status_path(config, job), time.monotonic()
    before = _last(config, job)
    good = before.last_good_at_utc if before else None
    facts = {"job": job, "pid": os.getpid(), "started_at_utc": now_text(), "last_good_at_utc": good}
    keep_status(path, JobStatus.model_validate(facts))
    code = int(ExitCode.CELL_RAISED)
    try:
        code = int(work())
    except (OpsError, TerminatedError) as error:
        code = int(error.exit_code)
        raise
    finally:
        if code == ExitCode.BUSY:
            _put_back(path, before, _last(config, job))
        else:
            facts["ended_at_utc"] = now_text()
            facts["duration_s"] = round(time.monotonic() - clock, 3)
            facts["exit_code"] = code
            if code in RAN_WELL:
                facts["last_good_at_utc"] = facts["ended_at_utc"]
            if told := tell_dead_man(config, job, code):
                show(f"{job}: dead man {told}")
            untold = keep_status(path, JobStatus.model_validate({**facts, "dead_man": told}))
            if untold:
                show(f"warning: {job}: how it ended ({_word(code)}) is not kept: {untold}")
    return code


def tell_dead_man(config: Config, job: str, code: int) -> str | None:
    """Fetch the job's dead-man URL, `/fail` after a bad run; return how that went, or None where
    none is configured. The URL itself is a secret and is not part of the answer."""
    reference: str | None = getattr(config.schedule.dead_man, job)
    if reference is None:
        return None
    try:
        address = resolve_reference(reference, config.root)
        check_address(address, f"schedule.dead_man.{job}")
    except ParameterError as error:
        return f"not told: {error}"
    if code not in RAN_WELL:
        parts = urlsplit(address)
        address = parts._replace(path=f"{parts.path.rstrip('/')}/fail").geturl()
    problem: str | None = None
    for pause_s in _PAUSES_S:
        time.sleep(pause_s)
        problem = tell(address, _PING_TIMEOUT_S)
        if problem is None:
            return "told" if code in RAN_WELL else "told of the failure"
    return f"not told: {reference}: {problem}"


def _last(config: Config, job: str) -> JobStatus | None:
    with suppress(InputError):  # a damaged file is replaced by this run's
        return read_status(config, job)
    return None


def _put_back(path: Path, before: JobStatus | None, now: JobStatus | None) -> None:
    if now is not None and now.pid != os.getpid():
        return  # the run that was under way has ended meanwhile, and said so
    if before is None:
        path.unlink(missing_ok=True)
    else:
        keep_status(path, before)


def _word(code: int) -> str:
    known = {int(one): one.name.lower().replace("_", " ") for one in ExitCode}
    word = known.get(code, tr("failed"))
    return f"{word} ({code})" if code else tr("pass")
