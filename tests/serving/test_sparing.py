"""What strangers cause is logged a few times a minute, and the rest is counted."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from pathlib import Path

import pytest
from starlette.types import Message

from opslib.serving import app
from opslib.serving.keys import make_key
from opslib.serving.logs import (
    CAUSED_OUTSIDE,
    EVENT_LOGGER,
    FEW,
    AccessLog,
    open_logs,
    sum_up_events,
)
from opslib.serving.service import Service
from opslib.serving.settings import load_settings
from tests.serving.conftest import Place

RECORDS = 3000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the logs of this process go to; what was counted before is said elsewhere."""
    sum_up_events()
    open_logs(tmp_path, "INFO", [], console=False)
    return tmp_path


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", [CAUSED_OUTSIDE, "uvicorn.error", "asyncio", "py.warnings"])
def test_events_of_one_place_in_the_code_are_summed_up(folder: Path, name: str) -> None:
    for index in range(FEW + 70):
        logging.getLogger(name).warning("cut off: %d", index)
    logging.getLogger(name).warning("something else")
    sum_up_events()
    sum_up_events()
    said = [line["message"] for line in read(folder / "api.err")]
    assert said == [
        *(f"cut off: {index}" for index in range(FEW)),
        "something else",
        f"70 more like it: cut off: {FEW + 69}",
    ]


def test_what_the_service_itself_does_is_always_logged(folder: Path) -> None:
    for _ in range(100):
        logging.getLogger(f"{EVENT_LOGGER}.reload").info("switched")
    assert len(read(folder / "api.err")) == 100


def test_requests_without_the_key_are_summed_up_by_their_status(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "api.out", [])
    for index in range(1000):
        log.write_sparingly(401, {"path": f"/{index}", "status": 401})
        log.write({"path": "/predict", "status": 200})
    log.write_sparingly(404, {"path": "/", "status": 404})
    log.close()
    lines = read(tmp_path / "api.out")
    assert sum(line["status"] == 200 for line in lines) == 1000
    assert sum(line["status"] == 401 for line in lines) == FEW + 1
    assert sum(line["status"] == 404 for line in lines) == 1
    assert lines[-1]["more"] == 1000 - FEW


def test_a_log_that_cannot_be_opened_anew_loses_its_line_and_nothing_else(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.write_text("no folder any more")
    logging.getLogger(EVENT_LOGGER).error("said to nobody")


def test_a_log_of_requests_that_cannot_be_opened_for_a_while_closes_nobody_elses_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "api.out"
    log = AccessLog(path, [])
    path.rename(tmp_path / "rotated")
    path.mkdir()
    log.write({"line": 1})
    strangers = [os.open(tmp_path, os.O_RDONLY) for _ in range(8)]
    log.write({"line": 2})
    for one in strangers:
        os.close(one)
    path.rmdir()
    log.write({"line": 3})
    log.close()
    assert [line["line"] for line in read(path)] == [3]


def test_a_record_that_names_a_file_of_no_known_characters_is_kept(folder: Path) -> None:
    logging.getLogger(EVENT_LOGGER).error("%s is missing", "model-\udcff.onnx")
    assert [line["message"] for line in read(folder / "api.err")] == [
        "model-\udcff.onnx is missing"
    ]


def test_what_worker_threads_log_while_it_is_summed_up_is_counted_once(folder: Path) -> None:
    def log() -> None:
        for _ in range(RECORDS):
            logging.getLogger(CAUSED_OUTSIDE).warning("")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=log) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            sum_up_events()
    finally:
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    sum_up_events()
    said = [str(line["message"]) for line in read(folder / "api.err")]
    more = [int(one.split()[0]) for one in said if one]
    assert said.count("") + sum(more) == len(threads) * RECORDS


def test_the_sums_go_on_after_one_that_failed(
    place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums: list[None] = []

    def fail_once() -> None:
        sums.append(None)
        if len(sums) == 1:
            raise RuntimeError("it is broken")

    monkeypatch.setattr(app, "PERIOD_S", 0.001)
    monkeypatch.setattr(app, "sum_up_events", fail_once)
    monkeypatch.setenv("API_KEY", make_key())
    served = app.create_app(Service(load_settings(place.config)))
    messages = ["startup", "shutdown"]

    async def receive() -> Message:
        async with asyncio.timeout(30):
            while messages == ["shutdown"] and len(sums) < 3:
                await asyncio.sleep(0.001)
        return {"type": f"lifespan.{messages.pop(0)}"}

    async def send(_message: Message) -> None: ...

    asyncio.run(served({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    assert "could not be summed up" in (folder / "api.err").read_text()
