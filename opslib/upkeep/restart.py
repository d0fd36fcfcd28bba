"""Running the restart command with a deadline: one that hangs is ended with all it started."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass

from opslib.core.deadline import wait_or_end

KILL_WAIT_S = 5.0


@dataclass(frozen=True)
class RestartResult:
    """Whether the command ended well, and how it ended in a few words."""

    ok: bool
    detail: str


def run_restart(command: str, timeout_s: float) -> RestartResult:
    """Run `command` (no shell) and return how it ended.

    Past `timeout_s` its whole process group is ended. Its output goes to a file, so that a daemon
    which it leaves behind and which keeps the output open does not hold this process up; the file
    is in memory, so that a full disk does not hinder a restart.
    """
    with os.fdopen(os.memfd_create("restart"), "w+b") as output:
        try:
            process = subprocess.Popen(
                shlex.split(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return RestartResult(False, f"cannot be run: {error.strerror or error}")
        try:
            code = wait_or_end(process, timeout_s, KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            return RestartResult(False, f"hung and was ended after {timeout_s:g} s")
        if code == 0:
            return RestartResult(True, "exit 0")
        output.seek(max(0, output.seek(0, os.SEEK_END) - 400))
        said = " ".join(output.read().decode(errors="replace").split())
        return RestartResult(False, f"exit {code}{': ' + said[-200:] if said else ''}")
