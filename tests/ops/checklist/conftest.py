"""A healthy operation: an experiment with a running service, its `.env`, its logs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from opslib.core.config import Config, load_config
from opslib.core.formatting import stamp, utc_now
from opslib.ops.bench.record import BenchRow
from opslib.ops.checklist.items import Visit
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.rota import prove_by_rota
from opslib.serving.keys import make_key, rotate_key
from opslib.serving.staging import RunningService, start_service
from opslib.upkeep.maintenance import run_maintenance
from tests.ops.release.restoring import make_releasable
from tests.runs.makers import bench_row, make_bench, make_lineage
from tests.serving.conftest import Place

ORIGIN = "https://pillsnap.co.kr"
DEGRADED = (
    b'{"status":"degraded","device":"cpu","engine":"onnx","model_loaded":true,"uptime_sec":1,'
    b'"wanted":"model-b","served":"model-a","reason":"it could not be loaded"}'
)


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


@contextmanager
def answering(status: int, body: bytes, kind: str = "application/json") -> Iterator[str]:
    """A program on a port that answers everything alike; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def closed_port() -> int:
    """A port of this host that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def json_line(message: str, *, at: datetime | None = None, level: str = "ERROR") -> str:
    """A line as the service writes it into `api.err`."""
    moment = (at or datetime.now(UTC)).isoformat(timespec="milliseconds")
    return json.dumps({"at_utc": moment, "level": level, "message": message}) + "\n"


def write_bench(
    config: Config, days_ago: float, *rows: BenchRow, name: str = "", **changes: Any
) -> Path:
    """Keep a benchmark of this host that was made some days ago."""
    moment = utc_now() - timedelta(days=days_ago)
    lineage = make_lineage().model_copy(update={"created_at_utc": moment.isoformat()})
    path = config.records_dir / f"bench_{stamp(moment)}{name}.json"
    return make_bench(rows, **{"lineage": lineage, **changes}).write(path)


def care_for(config: Config) -> None:
    """Do what the schedules of a healthy operation did: maintenance, release, restore test,
    benchmarks, a log that cloudflared writes."""
    run_maintenance(config, show=lambda _line: None)
    build_release(config, ReleaseRequest())
    assert prove_by_rota(config).verdict == "pass"
    write_bench(config, 31, bench_row(2.0), bench_row(5.0, batch_size=8))
    write_bench(config, 1, bench_row(2.01), bench_row(4.97, batch_size=8))
    line = f"{utc_now():%Y-%m-%dT%H:%M:%SZ} INF Registered tunnel connection connIndex=0\n"
    (config.logs_dir / "cloudflared.log").write_text(line)


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One healthy operation for all tests that leave it as it is."""
    place = make_releasable(tmp_path_factory.mktemp("plant"), "maintenance: {disks: [/]}\n")
    key = write_env(place.config_path.parent)
    variables = {"API_KEY": key, "CORS_ALLOW_ORIGINS": ORIGIN, "RATE_LIMIT_PER_MIN": "100000"}
    with start_service(place.config_path, variables=variables) as service:
        found = Plant(place, service)
        care_for(found.config())
        yield found


@pytest.fixture
def resting(tmp_path: Path) -> Plant:
    """An experiment of this test's own, whose service does not run."""
    place = make_releasable(tmp_path, "maintenance: {disks: [/]}\n")
    write_env(place.config_path.parent)
    address = f"http://127.0.0.1:{closed_port()}"
    return Plant(place, RunningService(address, 0, make_key(), tmp_path / "none"))
