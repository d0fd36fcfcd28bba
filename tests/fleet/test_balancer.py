"""H-7: six services behind a real nginx under open-loop load: a roll fails no request, whether it
goes through or not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from opslib.serving.keys import make_key
from opslib.serving.load import LoadPlan, LoadResult, start_load
from tests.fleet.playing import Fleet, open_fleet
from tests.fleet.sshd import free_port
from tests.waiting import await_that

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin")
NAMES = ("one", "two", "three", "four", "five", "six")
RATE_PER_S = 20.0
CONFIG = """
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream pills {{
    least_conn;
{servers}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://pills; proxy_next_upstream off; }}
  }}
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx")


@dataclass(frozen=True)
class Balanced:
    """A fleet, and the nginx in front of it."""

    fleet: Fleet
    url: str
    conf: Path

    def write_inventory(self, **changes: dict[str, object]) -> None:
        hosts = {
            name: {
                "balancer_host": "localhost",
                "balancer_conf": str(self.conf),
                "balancer_reload": f"{NGINX} -c {self.conf} -s reload",
                "balancer_server": live.service.url.removeprefix("http://"),
                **changes.get(name, {}),
            }
            for name, live in self.fleet.hosts.items()
        }
        self.fleet.write_inventory(**hosts)

    def roll_under_load(self) -> tuple[subprocess.CompletedProcess[str], LoadResult]:
        """Roll while requests arrive at a constant rate, whether or not they are answered."""
        live = self.fleet.hosts["one"]
        plan = LoadPlan(
            url=self.url,
            images=tuple(live.place.images),
            requests=10_000,
            rate_per_s=RATE_PER_S,
        )
        with start_load(plan, live.service.key) as load:
            load.wait_started()
            rolled = self.fleet.roll()
            return rolled, load.stop(30)


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    folder = tmp_path_factory.mktemp("balanced")
    conf, port = folder / "nginx.conf", free_port()
    with open_fleet(folder, NAMES, make_key()) as fleet:
        urls = [live.service.url.removeprefix("http://") for live in fleet.hosts.values()]
        servers = "\n".join(f"    server {url} max_fails=0;" for url in urls)
        conf.write_text(CONFIG.format(folder=folder, port=port, servers=servers))
        nginx = subprocess.Popen([str(NGINX), "-c", str(conf), "-g", "daemon off;"])
        try:
            url = f"http://127.0.0.1:{port}"
            await_that(lambda: _answers(url), "nginx")
            yield Balanced(fleet, url, conf)
        finally:
            nginx.terminate()
            nginx.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_roll_over_six_services_behind_nginx_fails_no_request(balanced: Balanced) -> None:
    balanced.fleet.put_back()
    balanced.write_inventory()
    before = balanced.conf.read_text()
    rolled, result = balanced.roll_under_load()
    assert rolled.returncode == 0, rolled.stdout
    assert set(balanced.fleet.served.values()) == {balanced.fleet.wanted}
    assert len(result.samples) > RATE_PER_S
    assert result.failures == ()
    assert {"model-a", "model-b"} == {sample.version_tag for sample in result.samples}
    assert rolled.stdout.count("[Have it read again]") == 2 * len(NAMES)
    assert balanced.conf.read_text() == before


def test_where_the_second_of_six_refuses_one_was_exposed_and_no_request_fails(
    balanced: Balanced,
) -> None:
    balanced.fleet.put_back()
    balanced.write_inventory(two={"request_field": "classification_path"})
    before, conf = balanced.fleet.served, balanced.conf.read_text()
    generations = balanced.fleet.generations
    rolled, result = balanced.roll_under_load()
    assert rolled.returncode == 2
    assert "two was not switched: /reload answered 422" in " ".join(rolled.stdout.split())
    assert len(result.samples) > RATE_PER_S
    assert result.failures == ()
    assert balanced.fleet.served == before
    # The first went there and back, no other was touched.
    first, *others = generations
    assert balanced.fleet.generations == [first + 2, *others]  # type: ignore[operator]
    assert balanced.conf.read_text() == conf
