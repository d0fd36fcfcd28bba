"""The last two steps of the walk: schedules installed and fired once, disks and logs cleaned."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from opslib.checklist.acceptance_steps import NotRunError, StepFailedError, newest
from opslib.core.formatting import format_bytes, plural

if TYPE_CHECKING:
    from opslib.checklist.acceptance_steps import Walk

_JOB_LIMIT_S = 300.0
_LOG_LINE = b"2026-01-01T00:00:00Z INF a line of the tunnel, number %d\n"
_LOG_LINES = 40_000


def rehearse_schedules(walk: Walk) -> str:
    """Install the schedules, run the first one as cron would, and leave the crontab as it was."""
    if shutil.which("crontab") is None:
        raise NotRunError("the program crontab is missing: apt-get install cron")
    pillops = (sys.executable, "-m", "opslib.cli.main", "schedule")
    marker = str(walk.config.source)
    installed_before = marker in _read_crontab()
    walk.run(*pillops, "install", "--demo")
    try:
        jobs = _jobs_of(_read_crontab(), marker)
        line = next((job for job in jobs if "scripts/maintenance.sh" in job), None)
        if line is None:
            raise StepFailedError(f"crontab -l: no maintenance job for {marker}")
        said = _run_as_cron(line, walk.config.logs_dir / "cron_maint.out")
    finally:
        if not installed_before:
            walk.run(*pillops, "remove")
    left = "left installed" if installed_before else "removed again"
    return f"{plural(len(jobs), 'job')} installed, the first run as cron does: {said}; {left}"


def rehearse_upkeep(walk: Walk) -> str:
    """Clean the experiment and rotate a planted log of the tunnel; every line must survive."""
    walk.run("scripts/maintenance.sh", "--dry-run")
    since = time.time() - 1
    walk.run("scripts/maintenance.sh")
    record = newest(walk.config.records_dir, "maintenance_*.json", since)
    with tempfile.TemporaryDirectory(prefix="pillops-acceptance-") as folder:
        log = Path(folder) / "cloudflared.log"
        text = b"".join(_LOG_LINE % number for number in range(_LOG_LINES))
        log.write_bytes(text)
        changed = {"PILLSNAP_ROTATE__LOG": str(log), "PILLSNAP_ROTATE__MAX_MB": "1"}
        walk.run(sys.executable, "-m", "opslib.cli.main", "rotate", variables=changed)
        archives = sorted(Path(folder).glob("cloudflared.log.*.gz"))
        kept = b"".join(gzip.decompress(path.read_bytes()) for path in archives)
        kept += log.read_bytes() if log.exists() else b""
        if not archives or kept != text:
            raise StepFailedError(f"{log.name}: {len(text) - len(kept)} bytes are missing")
        size = format_bytes(archives[0].stat().st_size)
    return f"{record.name}; {_LOG_LINES:,} lines of a log rotated into {size}, none lost"


def _read_crontab() -> str:
    answer = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    return answer.stdout


def _jobs_of(crontab: str, marker: str) -> list[str]:
    """The job lines of the block that belongs to this configuration."""
    lines = crontab.splitlines()
    ends = [index for index, line in enumerate(lines) if line.startswith("#") and marker in line]
    block = lines[ends[0] : ends[-1]] if ends else []
    return [
        line for line in block if line and not line.startswith("#") and line[0] in "*0123456789"
    ]


def _run_as_cron(line: str, log: Path) -> str:
    """Run a crontab line's command with cron's empty environment; return what its log gained."""
    before = log.stat().st_size if log.exists() else 0
    command = line.split(None, 5)[5].replace("\\%", "%")
    environment = {"HOME": os.environ.get("HOME", "/"), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    answer = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, timeout=_JOB_LIMIT_S, check=False
    )
    grown = log.stat().st_size - before if log.exists() else 0
    if answer.returncode or grown <= 0:
        raise StepFailedError(f"ended with {answer.returncode}, {log.name} grew by {grown} bytes")
    return f"exit code 0, {log.name} grew by {format_bytes(grown)}"
