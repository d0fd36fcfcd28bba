"""What a station's process does with a loaded engine."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from opslib.core.errors import UnavailableError
from opslib.inference.engine import EngineRequest
from opslib.inference.preprocess import DEFAULT_FUNCTION
from opslib.timing import station_process
from opslib.timing.blocks import Block
from opslib.timing.station import Station, Workload
from opslib.timing.workers import MeasureError
from tests.models import write_images, write_onnx


def block_of(run_delay_pct: float) -> Block:
    times_ms = (1.0,) * 11
    disturbed = run_delay_pct > 20
    return Block(times_ms=times_ms, wall_s=0.1, run_delay_pct=run_delay_pct, disturbed=disturbed)


def loaded() -> SimpleNamespace:
    engine = SimpleNamespace(run=lambda batch: batch)
    return SimpleNamespace(engine=engine, run=lambda: None, batch=None, first_run_ms=5.0)


@pytest.mark.parametrize(
    ("delays_pct", "kept_pct"), [([30.0, 5.0], 5.0), ([30.0, 60.0], 30.0), ([10.0], 10.0)]
)
def test_a_disturbed_block_is_repeated_once_and_the_calmer_one_stays(
    monkeypatch: pytest.MonkeyPatch, delays_pct: list[float], kept_pct: float
) -> None:
    measured = iter([block_of(delay) for delay in delays_pct])
    monkeypatch.setattr(station_process, "_loaded", {0: loaded()})
    monkeypatch.setattr(station_process, "measure_block", lambda call, **settings: next(measured))
    assert station_process.time_block(0, "inference", 0.1).block.run_delay_pct == kept_pct
    assert next(measured, None) is None


def test_a_peak_that_the_kernel_would_not_reset_is_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(station_process, "_loaded", {0: loaded()})
    monkeypatch.setattr(station_process, "measure_block", lambda call, **settings: block_of(0.0))
    monkeypatch.setattr(station_process, "_peak_is_own", [False])
    assert station_process.time_block(0, "inference", 0.1).peak_rss_bytes is None


def test_a_block_says_how_long_the_first_answer_after_loading_took(tmp_path: Path) -> None:
    (image,) = write_images(tmp_path / "images", 1)
    work = Workload((str(image),), 16, DEFAULT_FUNCTION)
    with Station("onnx") as measured:
        measured.load(EngineRequest("onnx", write_onnx(tmp_path / "m.onnx")), work)
        first, second = (measured.time_block("inference", 0.05) for _ in range(2))
    assert first.first_run_ms is not None
    assert first.first_run_ms == second.first_run_ms > 0


def test_weights_emptied_while_a_model_is_measured_end_it_with_one_line(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx", sidecar=True)
    (image,) = write_images(tmp_path / "images", 1)
    with Station("onnx") as measured:
        measured.load(EngineRequest("onnx", model), Workload((str(image),), 16, DEFAULT_FUNCTION))
        (tmp_path / "m.onnx.data").open("wb").close()
        with pytest.raises(MeasureError, match=r"^onnx: .*SIGBUS \(a file .* became shorter\)"):
            measured.visit(1)


def test_a_network_with_its_softmax_inside_answers_as_the_one_without(tmp_path: Path) -> None:
    names = tuple(str(path) for path in write_images(tmp_path / "images", 3))
    answers = []
    for head in (None, "Softmax"):
        model = write_onnx(tmp_path / f"{head}.onnx", head=head)
        with Station("onnx") as measured:
            measured.load(EngineRequest("onnx", model), Workload(names, 16, DEFAULT_FUNCTION))
            answers.append(measured.answer(len(names)))
    np.testing.assert_allclose(*answers, atol=1e-6)


@pytest.fixture
def station_of_one(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """The engines of a station's process, which is this one."""
    engines: dict[int, Any] = {}
    monkeypatch.setattr(station_process, "_loaded", engines)
    return engines


def test_one_engine_serves_several_batch_sizes_until_the_last_is_unloaded(
    tmp_path: Path, station_of_one: dict[int, Any]
) -> None:
    request = EngineRequest("onnx", write_onnx(tmp_path / "m.onnx"))
    work = Workload(tuple(map(str, write_images(tmp_path / "images", 2))), 16, DEFAULT_FUNCTION)
    station_process.load(0, request, work, True)
    station_process.load(1, replace(request, batch_size=2), work, True, like=0)
    assert station_of_one[1].engine is station_of_one[0].engine
    alone = station_process.answer(0, 2)
    station_process.unload(0)
    np.testing.assert_allclose(station_process.answer(1, 2), alone, atol=1e-6)
    station_process.unload(1)
    assert station_of_one == {}


def test_an_engine_whose_twin_is_gone_is_loaded_on_its_own(
    tmp_path: Path, station_of_one: dict[int, Any]
) -> None:
    work = Workload(tuple(map(str, write_images(tmp_path / "images", 1))), 16, DEFAULT_FUNCTION)
    request = EngineRequest("onnx", write_onnx(tmp_path / "m.onnx"))
    station_process.load(1, request, work, True, like=0)
    assert station_process.answer(1, 1).shape[0] == 1
    station_process.unload(1)
    assert station_of_one == {}


def test_a_fixed_batch_takes_no_other_from_a_twin(
    tmp_path: Path, station_of_one: dict[int, Any]
) -> None:
    work = Workload(tuple(map(str, write_images(tmp_path / "images", 1))), 16, DEFAULT_FUNCTION)
    request = EngineRequest("onnx", write_onnx(tmp_path / "m.onnx", batch=1))
    station_process.load(0, request, work, True)
    with pytest.raises(UnavailableError, match="fixed at 1"):
        station_process.load(1, replace(request, batch_size=2), work, True, like=0)
    station_process.unload(0)
