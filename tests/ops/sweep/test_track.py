"""A track outlives what runs on it: the engine at work is lost, the others are loaded again."""

import os
from pathlib import Path

import numpy as np
import pytest

from opslib.core.errors import ExitCode
from opslib.inference.engine import EngineRequest
from opslib.ops.sweep.track import Track, TrackedEngineError
from opslib.timing.station import Workload
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
    with Track("t") as track:
        track.load(1, engine, work)
        track.load(2, engine, work)
        before = track.answer(1, 2)
        with pytest.raises(TrackedEngineError, match="was ended by SIGABRT") as caught:
            track.visit(2)(Deadly(3))
        assert caught.value.number == 2
        np.testing.assert_array_equal(track.answer(1, 2), before)
        with pytest.raises(TrackedEngineError, match="was ended by SIGABRT"):
            track.visit(2)(3)
        track.unload(2)
        track.load(2, engine, work)
        assert len(track.visit(2)(3).times_ms) == 3


def test_an_engine_that_ends_the_new_process_too_is_lost_by_its_own_number(
    engine: EngineRequest, work: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnceOnly, "sent", 0)
    with Track("t") as track:
        track.load(1, OnceOnly(engine.engine, engine.path), work)
        track.load(2, engine, work)
        track.load(3, engine, work)
        with pytest.raises(TrackedEngineError):
            track.visit(2)(Deadly(3))
        assert len(track.visit(3)(2).times_ms) == 2
        with pytest.raises(TrackedEngineError, match="during _load") as caught:
            track.visit(1)(2)
        assert caught.value.number == 1


def test_an_engine_that_is_refused_keeps_its_exit_code_and_the_process(
    engine: EngineRequest, work: Workload, tmp_path: Path
) -> None:
    with Track("t") as track:
        track.load(1, engine, work)
        with pytest.raises(TrackedEngineError) as caught:
            track.load(2, EngineRequest("onnx", tmp_path / "none.onnx"), work)
        assert caught.value.exit_code == ExitCode.USAGE
        assert track.answer(1, 2).shape == (2, 3)


def test_a_graph_whose_optimization_ends_the_process_has_no_digest(
    engine: EngineRequest,
) -> None:
    class DeadlyRequest(EngineRequest):
        def __reduce__(self) -> tuple[object, ...]:
            return os.abort, ()

    with Track("t") as track:
        assert track.digest_graph(DeadlyRequest(engine.engine, engine.path)) is None
        assert track.digest_graph(engine) is not None
