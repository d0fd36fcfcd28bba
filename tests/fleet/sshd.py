"""A real `sshd` on loopback for each host: its own host key, port and user.

Where root allows it, each runs in namespaces of its own, with a user that only this `sshd` knows,
a process table that ends with it, and a disk of 8 KiB that is soon full. Elsewhere the user is
whoever runs the tests, and there is no such disk.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import await_that

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
PYTHON = shutil.which("python3", path="/usr/bin:/bin")
IS_ROOT = os.geteuid() == 0
SPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
FIRST_ID = 54_401  # of users without an entry in the system's own table
# In the namespaces: the table with the user, a place for sshd, and a small disk.
INSIDE = """
mount --bind "$1/passwd" /etc/passwd
mount -t tmpfs none /run
mkdir -p /run/sshd
mount -t tmpfs -o size=8k,uid=$3 none "$1/full"
exec "$2" -D -e -f "$1/sshd_config"
"""
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers {user}
MaxStartups 100
Subsystem sftp internal-sftp
"""


def can_split() -> bool:
    """Whether namespaces may be made here, as root in some containers may not."""
    words = [*SPACES, "mount", "-t", "tmpfs", "none", "/run"]
    return IS_ROOT and subprocess.run(words, capture_output=True, check=False).returncode == 0


@dataclass
class SshHost:
    """One host: where it listens, who may log in with which key, and its process."""

    folder: Path
    user: str
    uid: int
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def full(self) -> Path:
        """A folder on a disk that has no room for a model."""
        return self.folder / "full"

    def variables(self, **changes: object) -> dict[str, object]:
        """What the inventory says of it."""
        known = self.folder.parent / "known_hosts"
        strict = f"-F none -o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes"
        return {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": self.user,
            "ansible_ssh_private_key_file": str(self.folder.parent / "id"),
            "ansible_ssh_common_args": f"{strict} -o IdentitiesOnly=yes -o ConnectTimeout=5",
            "ansible_python_interpreter": PYTHON,
            "ansible_remote_tmp": str(self.folder / "tmp"),
            **changes,
        }

    def start(self) -> None:
        """Start its `sshd` and wait until it listens."""
        command = ["bash", "-euc", INSIDE, "bash", str(self.folder), str(SSHD), str(self.uid)]
        if IS_ROOT:
            command = [*SPACES, *command]
        else:
            command = [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        command = ["setpriv", "--pdeathsig", "KILL", *command]  # no longer than the tests
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        await_that(self._listens, f"sshd in {self.folder}")

    def kill(self) -> None:
        """End it with every session, at once."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            await_that(lambda: not self._listens(), f"the end of sshd in {self.folder}")

    def _listens(self) -> bool:
        assert self.process is not None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def make_key(path: Path) -> str:
    """Make a key pair without a passphrase; return the public half."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fleet", "-f", str(path)]
    subprocess.run(words, check=True)
    return path.with_suffix(".pub").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def open_hosts(folder: Path, *names: str) -> Iterator[dict[str, SshHost]]:
    """Start an `sshd` for each name, with one key for all and a `known_hosts` that has them."""
    public = make_key(folder / "id")
    make_key(folder / "other_id")
    hosts, known = {}, ""
    with ExitStack() as stack:
        for number, name in enumerate(names):
            user = f"pill{number}" if IS_ROOT else getpass.getuser()
            uid = FIRST_ID + number if IS_ROOT else os.getuid()
            host = SshHost(folder / name, user, uid, free_port())
            host.full.mkdir(parents=True)
            host_key = make_key(host.folder / "host_key")
            known += f"[127.0.0.1]:{host.port} {host_key}"
            (host.folder / "authorized_keys").write_text(public)
            entry = f"{user}:x:{uid}:{uid}::{host.folder}:/bin/sh\n"
            (host.folder / "passwd").write_text(Path("/etc/passwd").read_text() + entry)
            config = CONFIG.format(port=host.port, folder=host.folder, user=user)
            (host.folder / "sshd_config").write_text(config)
            (host.folder / "tmp").mkdir(mode=0o700)
            if IS_ROOT:
                os.chown(host.folder / "tmp", uid, uid)
            stack.callback(host.kill)
            host.start()
            hosts[name] = host
        (folder / "known_hosts").write_text(known)
        yield hosts
