"""What is in the model's world: a clock, models, releases, services, and what befalls a process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from opslib.core.config import Config, load_config
from opslib.core.errors import OpsError
from opslib.core.files import sha256_bytes
from opslib.serving.leases import LEASE_FOLDER
from opslib.serving.tenant import Tenant
from tests.deletions.faults import Process

START_S = datetime(2024, 3, 1, tzinfo=UTC).timestamp()
DAY_S = 86_400.0

Answer = Literal["up", "down", "hung", "mute"]


@dataclass
class Clock:
    """The true time, which a file server has, and the one that the host shows."""

    true_s: float = START_S
    error_s: float = 0.0

    @property
    def shown_s(self) -> float:
        """What the host takes for now."""
        return self.true_s + self.error_s

    def now(self, _zone: object = None) -> datetime:
        """What `datetime.now(UTC)` returns on the host."""
        return datetime.fromtimestamp(self.shown_s, UTC)

    def sleep(self, seconds: float) -> None:
        """Let time go by without waiting."""
        self.true_s += seconds


@dataclass(frozen=True)
class Fate:
    """What befalls a process: it dies at an operation, or finds the disk full from one on."""

    dies_at: int | None = None
    full_from: int | None = None
    torn: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a job ended: killed, refused with an error made on purpose, or done."""

    life: Process
    error: OpsError | None = None
    said: str = ""


@dataclass(frozen=True)
class Model:
    """An exported model: its files by name with their bytes, and its checkpoint's name."""

    path: Path
    files: dict[Path, bytes]
    checkpoint: str | None
    number: int

    @property
    def digest(self) -> str:
        """The digest of the unit, as the contract of a release defines it."""
        units = {path: data for path, data in self.files.items() if path.suffix != ".json"}
        if len(units) == 1:
            return sha256_bytes(units[self.path])
        lines = (f"{p.name} {len(d)} {sha256_bytes(d)}\n" for p, d in units.items())
        return sha256_bytes("".join(sorted(lines)).encode())


@dataclass
class Release:
    """A finished release: its place in the true order, and what it holds."""

    path: Path
    number: int
    dated_s: float
    models: tuple[Model, ...]
    pinned: bool = False
    sound: bool = True

    @property
    def name(self) -> str:
        """The name without its ending."""
        return self.path.name.removesuffix(".tar.gz")

    @property
    def files(self) -> tuple[Path, ...]:
        """The archive and what lies beside it."""
        beside = (f"{self.path.name}.sha256", f"{self.name}.manifest.json")
        return (self.path, *(self.path.with_name(name) for name in beside))


@dataclass(frozen=True)
class Aged:
    """Something that may go when it is `limit_days` old, and when it was really made."""

    path: Path
    data: bytes
    made_s: float
    limit_days: float
    is_log: bool = False


@dataclass
class Instance:
    """A service with an experiment of its own; its models may be those of others, too."""

    name: str
    host: str
    port: int
    folder: Path
    export: Path
    answer: Answer = "down"
    serving: Model | None = None
    pin: Path | None = None
    tenant: Tenant | None = None
    was_cleaned: bool = False

    @property
    def config_path(self) -> Path:
        """Its configuration, with its `.env` beside it."""
        return self.folder / "config.yaml"

    @property
    def exp(self) -> Path:
        """Its experiment."""
        return self.folder / "exp"

    @property
    def leases(self) -> list[Path]:
        """Its own leases, wherever it takes models from."""
        mark = f"{self.host}-{self.port}-"
        folders = (self.export, *self.exp.glob("releases/restored/*/export"))
        return [path for one in folders for path in one.glob(f"{LEASE_FOLDER}/{mark}*.json")]

    @cached_property
    def config(self) -> Config:
        """Its configuration, without the caller's environment."""
        return load_config(self.config_path, {})
