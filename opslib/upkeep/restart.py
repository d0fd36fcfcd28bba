"""Running the restart command with a deadline: one that hangs is ended with all it started."""

from __future__ import annotations

import os
import shlex
import subprocess

from opslib.core.deadline import wait_or_end

KILL_WAIT_S = 5.0


def run_restart(command: str, timeout_s: float) -> tuple[bool, str]:
    """Run `command` (no shell); return whether it ended well, and how in a few words.

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
            return False, f"cannot be run: {error.strerror or error}"
        try:
            code = wait_or_end(process, timeout_s, KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            return False, f"hung and was ended after {timeout_s:g} s"
        if code == 0:
            return True, "exit 0"
        output.seek(max(0, output.seek(0, os.SEEK_END) - 400))
        said = " ".join(output.read().decode(errors="replace").split())
        return False, f"exit {code}{': ' + said[-200:] if said else ''}"
