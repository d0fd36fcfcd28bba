"""What strangers cause is logged a few times a minute, and the rest is counted."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from opslib.serving.logs import (
    CAUSED_OUTSIDE,
    EVENT_LOGGER,
    FEW,
    AccessLog,
    open_logs,
    sum_up_events,
)


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
