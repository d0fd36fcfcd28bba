"""A staged service and its load end with whoever started them, also when that one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from opslib.serving.staging import start_service
from tests.serving.conftest import Place, write_colours
from tests.waiting import await_end, is_alive

pytestmark = pytest.mark.usefixtures("plain_processes")

STARTER = """
import sys
from pathlib import Path
from opslib.serving.load import LoadPlan, start_load
from opslib.serving.staging import start_service

variables = {"RATE_LIMIT_PER_MIN": "1000000"}
with start_service(Path(sys.argv[1]), variables=variables) as service:
    plan = LoadPlan(url=service.url, images=(Path(sys.argv[2]),), requests=10**6, rate_per_s=50)
    with start_load(plan, service.key) as load:
        load.wait_started()
        print(service.pid, load._process.pid, flush=True)
        sys.stdin.read()
"""


def test_a_service_and_a_load_end_when_their_starter_is_killed(place: Place) -> None:
    image = write_colours(place.config.data_root)[0]
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(place.config_path), str(image)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    pids = [int(one) for one in starter.stdout.readline().split()]
    assert all(is_alive(pid) for pid in pids)
    starter.kill()
    starter.communicate()
    for pid in pids:
        await_end(pid)


def test_a_proxy_of_the_host_does_not_stand_between_us_and_our_service(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with start_service(place.config_path) as service:
        os.kill(service.pid, signal.SIGCONT)
