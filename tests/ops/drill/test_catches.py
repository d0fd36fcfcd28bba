"""H-3: the drill can fail: a service with a broken reload is caught, each kind by a test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from opslib.ops.drill.record import DrillRecord
from opslib.ops.drill.request import DrillRequest
from opslib.ops.drill.run import run_drill
from opslib.serving.keys import make_key
from opslib.serving.staging import stop_process
from opslib.timing.lock import LOCK_HELD_VARIABLE
from tests.ops.drill.conftest import make_drill_place
from tests.ops.drill.fake_service import FAULTS
from tests.running import PreparedProcess
from tests.serving.conftest import Place
from tests.waiting import await_that

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def start_fake(place: Place, fault: str, key: str) -> Iterator[str]:
    """Start the fake service with a fault and yield its address."""
    port = place.config_path.with_name("port")
    port.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.ops.drill.fake_service"]
    process = PreparedProcess(
        [*command, str(port), str(place.second), fault],
        cwd=ROOT,
        env=os.environ | {"API_KEY": key},
    )
    try:
        await_that(lambda: port.exists() and port.read_text(), "the fake's start")
        yield f"http://127.0.0.1:{port.read_text()}"
    finally:
        stop_process(process)


@dataclass(frozen=True)
class Drilled:
    """A service's experiment and the drill of it that is under way."""

    place: Place
    record: Future[DrillRecord]


@pytest.fixture(scope="module")
def drills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Drilled]]:
    """A short drill of each of the services; they mostly wait, so several go on at a time."""
    key = make_key()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setenv("API_KEY", key)
        patch.setenv(LOCK_HELD_VARIABLE, "1")

        def drill(place: Place, fault: str) -> DrillRecord:
            with start_fake(place, fault, key) as url:
                return run_drill(place.config, DrillRequest(url=url))

        places = {fault: make_drill_place(tmp_path_factory.mktemp("drilled")) for fault in FAULTS}
        yield {
            fault: Drilled(place, pool.submit(drill, place, fault))
            for fault, place in places.items()
        }


def result(record: DrillRecord, name: str) -> str:
    """The result of one line of the verdict."""
    return next(one.result for one in record.checks if one.name.startswith(name))


def broken(record: DrillRecord) -> dict[str, str]:
    """What was injected and not survived, with what was seen."""
    return {one.injected: one.seen for one in record.injections if one.held is False}


def test_a_service_that_keeps_its_promises_is_not_failed(drills: dict[str, Drilled]) -> None:
    record = drills["none"].record.result()
    assert record.verdict != "fail", record.finding
    assert (record.failed, record.mixed, broken(record)) == (0, 0, {})
    left = list(drills["none"].place.export.glob(".drill.*"))
    assert not left
    skipped = [one for one in record.injections if one.held is None]
    assert [one.injected for one in skipped] == ["a pipe", "kill -9 of the service"]


def test_dropping_the_old_model_first_is_caught_by_the_requests_that_fail(
    drills: dict[str, Drilled],
) -> None:
    record = drills["drops the old model first"].record.result()
    assert record.verdict == "fail"
    assert record.exit_code == 3
    assert record.failed > 0
    assert result(record, "failed requests") == "fail"
    assert "503" in record.finding


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("mixes body and header", "different generations"),
        ("mixes predictions", "another model's"),
        ("lets the old model answer on", "after the switch was confirmed"),
    ],
)
def test_mixed_generations_are_caught_in_the_answers(
    drills: dict[str, Drilled], fault: str, reason: str
) -> None:
    record = drills[fault].record.result()
    assert record.verdict == "fail"
    assert record.failed == 0
    assert record.mixed > 0
    check = next(one for one in record.checks if one.name == "answers that mix models")
    assert check.result == "fail"
    assert reason in str(check.reason)


def test_answering_200_on_failure_is_caught_by_every_bad_model(drills: dict[str, Drilled]) -> None:
    record = drills["answers 200 on failure"].record.result()
    assert record.verdict == "fail"
    assert {"a path with a typo", "NaN weights", "an empty file"} <= broken(record).keys()
    assert all(seen == "200: accepted" for seen in broken(record).values())


def test_serving_a_bad_model_is_caught_and_mended(drills: dict[str, Drilled]) -> None:
    record = drills["serves a bad model"].record.result()
    assert record.verdict == "fail"
    assert "now serves bad" in broken(record)["NaN weights"]
    assert "an empty file" not in broken(record)
    home = record.injections[-1]
    assert home.injected == "the end of the drill"
    assert home.held


def test_a_refusal_that_changes_the_generation_is_caught(drills: dict[str, Drilled]) -> None:
    record = drills["counts a refusal as a switch"].record.result()
    assert record.verdict == "fail"
    assert broken(record)["text"].startswith("422, stage read; now serves ")


def test_not_coming_home_is_caught(drills: dict[str, Drilled]) -> None:
    record = drills["never goes home"].record.result()
    assert record.verdict == "fail"
    assert "the end of the drill" in broken(record)
    assert "bring it back with `pillops reload" in record.notes[0]
