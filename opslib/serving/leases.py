"""Leases: which models of a folder a service uses, told in a hidden folder beside the models.

Whoever shares models shares the folder that they lie in and nothing else: no experiment, no clock,
not the place where the folder is mounted. So a lease names models of its own folder, and its age is
the difference of two modification times that the file server set: the lease's own, and that of a
probe written beside it.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from opslib.core.config import Config
from opslib.core.env_file import read_env_file
from opslib.core.environment import find_variable
from opslib.core.errors import ConfigError, InputError
from opslib.core.files import hide_name, sha256_bytes
from opslib.core.kinds import PIN
from opslib.core.records import Record
from opslib.core.served import STATE_NAME, ServedState
from opslib.serving.live import join_address

LEASE_FOLDER = ".in-use"
REFRESH_S = 60.0
FRESH_S = 300.0
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (compared, not listened on)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Lease(Record):
    """What one service uses of a folder: the names of models in it, each with the reason.

    `host`, `address` and `port` say where it listens; `exp_dir` and `env_file` where its state and
    its pin are, as it sees them; `pin` is the variable that pins a model, and `root` where a
    relative path in `env_file` begins. `stopped` says that it ended in order.
    """

    schema_name = "lease"

    host: str
    address: str
    port: int
    pid: int
    exp_dir: Path
    env_file: Path
    root: Path
    pin: str = Field(default=PIN, exclude_if=lambda value: value == PIN)
    models: dict[str, str]
    stopped: bool = False

    @field_validator("models")
    @classmethod
    def _check_names(cls, models: dict[str, str]) -> dict[str, str]:
        for name in models:
            if Path(name).name != name:
                raise ValueError(f"{name!r} is no name of a file in its folder")
        return models

    @property
    def file_name(self) -> str:
        """The name of its file: one for each host, port and experiment, whatever the process."""
        host = "".join(sign if sign.isalnum() else "-" for sign in self.host)
        return f"{host}-{self.port}-{sha256_bytes(os.fsencode(self.exp_dir))[:8]}.json"

    def url(self) -> str | None:
        """Return where its service is reached from this host, or None where it is not."""
        local = self.host == platform.node()
        if self.address in _LOOPBACK and not local:
            return None
        host = self.address
        if host in _EVERYWHERE:
            host = "127.0.0.1" if local else self.host
        return f"http://{join_address(host, self.port)}"


@dataclass(frozen=True)
class FoundLease:
    """A lease and the file that it was read from."""

    path: Path
    lease: Lease

    def models(self) -> Iterator[tuple[Path, str]]:
        """Yield the models that count by it, each with the reason: those that it names, and those
        that its service would look for when it is started, as far as that is seen from here (an
        `InputError` where the state is there and cannot be read)."""
        lease, by = self.lease, f"by the service of {self.path}"
        for name, why in lease.models.items():
            yield self.path.parents[1] / name, f"{why}, as {self.path} says"
        state = lease.exp_dir / STATE_NAME
        if os.path.lexists(state):
            for path, why in ServedState.read(state).needed():
                yield path, f"{why} {by}"
        # Perhaps not ours to read; what it named when that service started is in the lease.
        with suppress(ConfigError):
            for pinned in find_variable(read_env_file(lease.env_file), lease.pin):
                yield lease.root / Path(pinned), f"pinned {by}"

    def may_be_outdated(self) -> bool:
        """Return whether its service may run and use what the lease does not name: it did not end
        in order and has not renewed the lease for a while, by the clock of the file server."""
        if self.lease.stopped:
            return False
        probe = hide_name(self.path)
        try:
            probe.touch()  # without a byte, so that a full disk takes it, too
            age_s = probe.stat().st_mtime - self.path.stat().st_mtime
        except OSError:
            return True
        finally:
            with suppress(OSError):
                probe.unlink()
        return abs(age_s) > FRESH_S


def find_leases(config: Config) -> tuple[FoundLease, ...]:
    """Return the leases on the folders of models that this experiment cleans; one that cannot be
    read is an `InputError`: what its service uses is not known."""
    found = []
    for folder in lease_folders(config):
        for path in _list(folder):
            try:
                if path.is_fifo():  # to open it would wait for a writer, perhaps for ever
                    raise InputError(f"{path}: a pipe, no lease")
                found.append(FoundLease(path, Lease.read(path)))
            except InputError as error:
                if os.path.lexists(path):
                    raise InputError(f"{error}; remove it if no service uses it") from error
    return tuple(found)


def lease_folders(config: Config) -> tuple[Path, ...]:
    """Return where leases lie beside the models that this experiment might delete."""
    homes = (
        config.export_dir,
        config.exp_dir / "checkpoints",
        *(config.exp_dir / "quantized").glob("*"),
        *config.restore_dir.glob("*/export"),
    )
    return tuple(home / LEASE_FOLDER for home in homes)


def _list(folder: Path) -> list[Path]:
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.lexists(folder):  # a file, or a link to nowhere: the leases are somewhere else
            raise InputError(f"{folder}: no folder; remove it if no service uses it") from error
        return []
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    return [folder / name for name in sorted(names) if name[0] != "." and name.endswith(".json")]
