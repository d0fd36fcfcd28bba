"""Ansible action: hold a file locked for as long as this `ansible-playbook` lives, or refuse.

Workers and modules end with their task, so a process of its own holds the lock; it ends with the
playbook's process, however that ends.
"""

import os
import subprocess
import sys
from pathlib import Path

from ansible.plugins.action import ActionBase

HOLDER = Path(__file__).resolve().parents[1] / "hold_lock.py"


class ActionModule(ActionBase):
    """`pillops_lock: {path: FILE}`, on the controller whatever the host is."""

    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Start the holder; fail where another one holds the lock."""
        result = super().run(tmp, task_vars)
        path = self._task.args["path"]
        holder = subprocess.Popen(
            [sys.executable, str(HOLDER), path, str(os.getppid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        said = holder.stdout.readline().decode().strip()
        if said != "held":
            result.update(failed=True, msg=f"{path}: {said or 'the lock was not taken'}")
        return result
