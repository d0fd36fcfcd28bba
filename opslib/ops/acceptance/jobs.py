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

from opslib.core.formatting import format_bytes, plural
from opslib.ops.acceptance.put_back import put_back
from opslib.ops.acceptance.steps import NotRunError, StepFailedError, newest
from opslib.upkeep.crontab import PROGRAM, read_crontab, take_apart

if TYPE_CHECKING:
    from opslib.ops.acceptance.steps import Walk

_JOB_LIMIT_S = 300.0
_LOG_LINE = b"2026-01-01T00:00:00Z INF a line of the tunnel, number %d\n"
_LOG_LINES = 40_000


def rehearse_schedules(walk: Walk) -> str:
    """Install the schedules, run the first one as cron would, and leave the crontab as it was."""
    if shutil.which(PROGRAM) is None:
        raise NotRunError(f"the program {PROGRAM} is missing: apt-get install cron")
    with put_back(walk.config, "schedules"):
        walk.run(sys.executable, "-m", "opslib.cli", "schedule", "install", "--demo")
        block = take_apart(read_crontab(), str(walk.config.source)).block or ""
        jobs = [line for line in block.splitlines() if not line.startswith("#")]
        line = next((job for job in jobs if "scripts/maintenance.sh" in job), None)
        if line is None:
            raise StepFailedError(f"crontab -l: no maintenance job for {walk.config.source}")
        said = _run_as_cron(line, walk.config.logs_dir / "cron_maint.out")
    installed = f"{plural(len(jobs), 'job')} installed, the first run as cron does: {said}"
    return f"{installed}; the crontab is as it was before"


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
        walk.run(sys.executable, "-m", "opslib.cli", "rotate", variables=changed)
        archives = sorted(Path(folder).glob("cloudflared.log.*.gz"))
        kept = b"".join(gzip.decompress(path.read_bytes()) for path in archives)
        kept += log.read_bytes() if log.exists() else b""
        if not archives or kept != text:
            raise StepFailedError(f"{log.name}: {len(text) - len(kept)} bytes are missing")
        size = format_bytes(archives[0].stat().st_size)
    return f"{record.name}; {_LOG_LINES:,} lines of a log rotated into {size}, none lost"


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
