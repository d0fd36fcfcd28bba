"""A real `sshd` that offers SFTP, and an account that knows it and has a key for it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fleet.sshd import IS_ROOT, SSHD, SshHost, can_split, open_hosts

ALIAS = "store.test"
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
    return bool(SSHD and (can_split() or not IS_ROOT))


@dataclass(frozen=True)
class Sftp:
    """A host that stores, and the home of the account that knows it."""

    host: SshHost
    account: Path

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
        """Where that account looks for host keys."""
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
    def told(self, first: str) -> Iterator[None]:
        """Have the account's configuration begin with these lines."""
        self.configure(first=first)
        try:
            yield
        finally:
            self.configure()

    @contextmanager
    def answering(self, command: str) -> Iterator[None]:
        """Have another key of `open_hosts` offered, to which the host answers with a command."""
        allowed = self.host.folder / "authorized_keys"
        public = (self.host.folder.parent / "other_id.pub").read_text()
        before = allowed.read_text()
        allowed.write_text(f'{before}command="{command}" {public}')
        try:
            with self.with_key("other_id"):
                yield
        finally:
            allowed.write_text(before)

    @contextmanager
    def with_key(self, name: str) -> Iterator[None]:
        """Have another key of `open_hosts` offered."""
        self.configure(key=name)
        try:
            yield
        finally:
            self.configure()

    def configure(self, port: int = 0, key: str = "id", first: str = "") -> None:
        """Write what that account is told, `first` before all the rest."""
        text = CONFIG.format(
            alias=ALIAS,
            known=self.host.port,
            port=port or self.host.port,
            user=self.host.user,
            folder=self.host.folder.parent,
            key=key,
        )
        (self.account / ".ssh/config").write_text(first + text)


@contextmanager
def start_sftp(folder: Path) -> Iterator[Sftp]:
    """Run a host, with all it needs in `folder`, which other users must be able to reach."""
    (folder / "account/.ssh").mkdir(parents=True)
    with open_hosts(folder, "store") as hosts:
        found = Sftp(hosts["store"], folder / "account")
        found.configure()
        yield found


def meet(sftp: Sftp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this test, and what it starts, be that account."""
    monkeypatch.setenv("HOME", str(sftp.account))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
