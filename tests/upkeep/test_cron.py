"""H-10 step 8: schedules installed into a real cron, and their first run logged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.serving.staging import stop_process
from opslib.upkeep.job_status import read_status
from tests.models import write_config
from tests.waiting import await_that

# cron and crontab in a mount namespace of their own: nobody's table or pid file is touched, and
# no other job of this host is started a second time.
ALONE = """
for place in /var/spool/cron/crontabs /run /etc/cron.d; do mount -t tmpfs none "$place"; done
mount --bind /dev/null /etc/crontab
chmod 1730 /var/spool/cron/crontabs
touch -d '1 hour ago' /var/spool/cron/crontabs # cron looks again when its time changes, in seconds
: > /run/ready
exec cron -f
"""
EVERY_MINUTE = """schedule:
  maintenance: null
  index: "* * * * *"
  release: null
  bench: null
  drill: null
"""
DEADLINE_S = 100.0


@contextmanager
def run_cron() -> Iterator[int]:
    """Run a real cron of this test's own and yield its pid, whose mounts others can enter."""
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-euc", ALONE], stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        ready = Path(f"/proc/{process.pid}/root/run/ready")
        comm = Path(f"/proc/{process.pid}/comm")
        while comm.read_text().strip() != "cron":
            if process.poll() is not None:
                said = process.stderr.read().decode() if process.stderr else ""
                pytest.skip(f"no mount namespace here: {said.strip()}")
            time.sleep(0.02)
        assert ready.exists()
        yield process.pid
    finally:
        stop_process(process)


@pytest.mark.cron
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to start a cron of its own")
def test_h10_a_real_cron_starts_what_was_installed_and_the_run_is_logged(tmp_path: Path) -> None:
    folder = tmp_path / "a b%c"  # a bare % would end the command, a blank split it
    (folder / "exp").mkdir(parents=True)
    path = write_config(folder, EVERY_MINUTE)
    config = load_config(path, {})
    log = config.logs_dir / "cron_index.out"
    with run_cron() as pid:
        inside = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "--"]

        def call(*words: str, given: str = "") -> str:
            answer = subprocess.run(
                [*inside, *words], input=given, capture_output=True, text=True, check=True
            )
            return answer.stdout

        pillops = (sys.executable, "-m", "opslib.cli", "schedule")
        foreign = "# mine\n0 0 1 1 * true \\% stays\n"
        call("crontab", "-", given=foreign)
        call(*pillops, "install", "--config", str(path))
        assert "no cron runs" not in call(*pillops, "show", "--config", str(path))
        table = call("crontab", "-l")
        assert table.startswith(foreign)
        await_that(
            lambda: log.exists() and "ended with 0" in log.read_text(), "the first run", DEADLINE_S
        )
        await_that(lambda: read_status(config, "index").exit_code == 0, "its account", DEADLINE_S)  # type: ignore[union-attr]
        assert "pass after" in call(*pillops, "show", "--config", str(path))
        assert (config.report_dir / "index.html").exists()
        call(*pillops, "remove", "--config", str(path))
        assert call("crontab", "-l") == foreign
