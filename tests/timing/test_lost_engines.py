"""A station outlives what runs on it: the engine at work is lost, the others are loaded again."""

import os
from pathlib import Path

import numpy as np
import pytest

from opslib.core.errors import ExitCode, OpsError
from opslib.inference.engine import EngineRequest
from opslib.timing.station import RacerError, Station, Workload
from tests.models import write_images, write_onnx


class Deadly(int):
    """A number of runs that ends the process that is told it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.abort, ()


class OnceOnly(EngineRequest):
    """Loads once; the process that is to load it again ends."""

    sent = 0

    def __reduce__(self) -> tuple[object, ...]:
        OnceOnly.sent += 1
        # each call is pickled twice: once to see whether it can be sent
        return (os.abort, ()) if OnceOnly.sent > 2 else (EngineRequest, (self.engine, self.path))


@pytest.fixture
def engine(tmp_path: Path) -> EngineRequest:
    """A small model on the CPU."""
    return EngineRequest("onnx", write_onnx(tmp_path / "m.onnx"))


@pytest.fixture
def work(tmp_path: Path) -> Workload:
    """Two images."""
    names = tuple(str(path) for path in write_images(tmp_path / "images", 2))
    return Workload(names, 16, "opslib.inference.preprocess:preprocess")


def test_the_engine_at_work_is_lost_and_the_others_answer_as_before(
    engine: EngineRequest, work: Workload
) -> None:
    with Station("t") as station:
        station.load(engine, work, 1)
        station.load(engine, work, 2)
        before = station.answer(2, 1)
        with pytest.raises(RacerError, match="was ended by SIGABRT") as caught:
            station.racer(2)(Deadly(3))
        assert caught.value.number == 2
        np.testing.assert_array_equal(station.answer(2, 1), before)
        with pytest.raises(RacerError, match="was ended by SIGABRT"):
            station.racer(2)(3)
        station.unload(2)
        station.load(engine, work, 2)
        assert len(station.racer(2)(3).times_ms) == 3


def test_an_engine_that_ends_the_new_process_too_is_lost_by_its_own_number(
    engine: EngineRequest, work: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnceOnly, "sent", 0)
    with Station("t") as station:
        station.load(OnceOnly(engine.engine, engine.path), work, 1)
        station.load(engine, work, 2)
        station.load(engine, work, 3)
        with pytest.raises(RacerError):
            station.racer(2)(Deadly(3))
        assert len(station.racer(3)(2).times_ms) == 2
        with pytest.raises(RacerError, match="during load") as caught:
            station.racer(1)(2)
        assert caught.value.number == 1


def test_an_engine_that_is_refused_keeps_its_exit_code_and_the_process(
    engine: EngineRequest, work: Workload, tmp_path: Path
) -> None:
    with Station("t") as station:
        station.load(engine, work, 1)
        with pytest.raises(OpsError) as caught:
            station.load(EngineRequest("onnx", tmp_path / "none.onnx"), work, 2)
        assert caught.value.exit_code == ExitCode.USAGE
        assert RacerError(2, caught.value).exit_code == ExitCode.USAGE
        assert station.answer(2, 1).shape == (2, 3)
