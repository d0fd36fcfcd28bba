"""A healthy operation: an experiment with a running service, its `.env`, its logs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opslib.checklist.items import Visit
from opslib.core.config import Config, load_config
from opslib.core.formatting import utc_now
from opslib.serving.keys import make_key
from opslib.serving.rotation import rotate_key
from opslib.serving.staging import RunningService, start_service
from tests.serving.conftest import Place, make_place

ORIGIN = "https://pillsnap.co.kr"


@dataclass(frozen=True)
class Plant:
    """An experiment outside the demo with a running service; faults are planted by overriding
    keys, or by changing its files."""

    place: Place
    service: RunningService

    @property
    def folder(self) -> Path:
        """The folder of the configuration."""
        return self.place.config_path.parent

    def config(self, **keys: str) -> Config:
        """The configuration, keys overridden: `health__external_url="http://…"`."""
        given = {
            "client__url": self.service.url,
            "health__internal_url": f"{self.service.url}/health",
            "health__external_url": f"{self.service.url.replace('127.0.0.1', 'localhost')}/health",
            **keys,
        }
        variables = {f"PILLSNAP_{name.upper()}": value for name, value in given.items()}
        return load_config(self.place.config_path, variables)

    def visit(self, *, hours: float = 24.0, now: datetime | None = None, **keys: str) -> Visit:
        """What a check of this experiment is given."""
        return Visit(self.config(**keys), "daily", hours, now or utc_now())


def write_env(folder: Path, **values: str) -> str:
    """Write a `.env` with a strong, young key and production's origin; return the key."""
    env_file = folder / ".env"
    env_file.unlink(missing_ok=True)
    rotate_key(env_file)
    key = next(
        line.removeprefix("API_KEY=")
        for line in env_file.read_text().splitlines()
        if line.startswith("API_KEY=")
    )
    lines = [f"{name}={value}" for name, value in {"CORS_ALLOW_ORIGINS": ORIGIN, **values}.items()]
    env_file.write_text(env_file.read_text() + "\n".join(lines) + "\n")
    env_file.chmod(0o600)
    return key


def closed_port() -> int:
    """A port of this host that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def json_line(message: str, *, at: datetime | None = None, level: str = "ERROR") -> str:
    """A line as the service writes it into `api.err`."""
    moment = (at or datetime.now(UTC)).isoformat(timespec="milliseconds")
    return json.dumps({"at_utc": moment, "level": level, "message": message}) + "\n"


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One healthy operation for all tests that leave it as it is."""
    place = make_place(tmp_path_factory.mktemp("plant"))
    key = write_env(place.config_path.parent)
    variables = {"API_KEY": key, "CORS_ALLOW_ORIGINS": ORIGIN, "RATE_LIMIT_PER_MIN": "100000"}
    with start_service(place.config_path, variables=variables) as service:
        yield Plant(place, service)


@pytest.fixture
def resting(tmp_path: Path) -> Plant:
    """An experiment of this test's own, whose service does not run."""
    place = make_place(tmp_path)
    write_env(place.config_path.parent)
    address = f"http://127.0.0.1:{closed_port()}"
    return Plant(place, RunningService(address, 0, make_key(), tmp_path / "none"))
