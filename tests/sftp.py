"""A real `sshd` that offers SFTP, and an `ssh` that knows it and has a key for it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fleet.sshd import IS_ROOT, SSHD, SshHost, can_split, open_hosts

ALIAS = "store.test"
# OpenSSH takes a user's folder from the system's table, not from HOME: so its file is named.
SSH = """#!/bin/sh
exec {ssh} -F {config} "$@"
"""
# First the alias: of each setting the first counts.
CONFIG = """
Host {alias}
  HostName 127.0.0.1
  HostKeyAlias [127.0.0.1]:{known}
  Port {port}
  User {user}
Host *
  IdentityFile {folder}/{key}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking accept-new
  NoHostAuthenticationForLocalhost yes
"""


def can_serve() -> bool:
    """Whether there is what it takes."""
    return bool(SSHD and shutil.which("ssh") and (can_split() or not IS_ROOT))


@dataclass(frozen=True)
class Sftp:
    """A host that stores, and the folder with the `ssh` that knows it."""

    host: SshHost
    bin: Path

    @property
    def place(self) -> str:
        """Its address, with user and port, and no folder."""
        return f"sftp://{self.host.user}@127.0.0.1:{self.host.port}"

    @property
    def home(self) -> Path:
        """The folder that its user may write in."""
        return self.host.folder / "tmp"

    @property
    def known_hosts(self) -> Path:
        """Where `ssh` looks for host keys."""
        return self.host.folder.parent / "known_hosts"

    def make_store(self) -> str:
        """The address of a folder that no other test has, and that is not there yet."""
        return f"{self.place}{self.home}/a%20store-{secrets.token_hex(4)}"

    def folder(self, url: str) -> Path:
        """Where on this host the folder of an address lies."""
        return self.home / url.rpartition("/")[2].replace("%20", " ")

    @contextmanager
    def behind(self, port: int) -> Iterator[str]:
        """Have the alias reached through another port; yield the address of a new folder there."""
        self.configure(port=port)
        try:
            yield f"sftp://{ALIAS}{self.home}/store-{secrets.token_hex(4)}"
        finally:
            self.configure()

    @contextmanager
    def with_key(self, name: str) -> Iterator[None]:
        """Have another key of `open_hosts` offered."""
        self.configure(key=name)
        try:
            yield
        finally:
            self.configure()

    def configure(self, port: int = 0, key: str = "id") -> None:
        """Write what `ssh` is told."""
        text = CONFIG.format(
            alias=ALIAS,
            known=self.host.port,
            port=port or self.host.port,
            user=self.host.user,
            folder=self.host.folder.parent,
            key=key,
        )
        (self.bin / "config").write_text(text)


@contextmanager
def start_sftp(folder: Path) -> Iterator[Sftp]:
    """Run a host, with all it needs in `folder`, which other users must be able to reach."""
    (folder / "bin").mkdir()
    with open_hosts(folder, "store") as hosts:
        found = Sftp(hosts["store"], folder / "bin")
        found.configure()
        program = found.bin / "ssh"
        program.write_text(SSH.format(ssh=shutil.which("ssh"), config=found.bin / "config"))
        program.chmod(0o755)
        yield found


def meet(sftp: Sftp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this test, and what it starts, find that `ssh`."""
    monkeypatch.setenv("PATH", str(sftp.bin), prepend=os.pathsep)
