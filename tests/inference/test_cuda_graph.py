"""CUDA graphs on a stand-in session: one binding, fixed addresses, one shape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opslib.core.errors import ModelError
from opslib.inference import onnx_engine
from opslib.inference.engine import EngineRequest
from opslib.inference.onnx_engine import CudaGraphBinding, OnnxEngine
from opslib.inference.providers import ProviderChoice, SessionSettings
from tests.inference.fake_session import FakeBinding, FakeSession


class FakeValue:
    """A tensor on the card that counts what is copied into it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.updates = array.copy(), 0

    def update_inplace(self, array: np.ndarray) -> None:
        self.array[...] = array
        self.updates += 1

    def numpy(self) -> np.ndarray:
        return self.array


class GraphBinding(FakeBinding):
    def bind_ortvalue_input(self, name: str, value: FakeValue) -> None:
        self.source = value
        self.inputs[name] = value.array

    def bind_ortvalue_output(self, name: str, value: FakeValue) -> None:
        self.target = value
        self.outputs[name] = "cuda"


class GraphSession(FakeSession):
    """A session that writes its answer to the bound output."""

    made = 0

    def io_binding(self) -> GraphBinding:
        self.made += 1
        return GraphBinding(self)

    def run_with_iobinding(self, binding: Any) -> None:
        super().run_with_iobinding(binding)
        binding.target.array[...] = self.answer(binding.source.array)


@pytest.fixture(autouse=True)
def _no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_engine, "_value_on_card", FakeValue)


def test_a_captured_graph_keeps_its_addresses_and_answers_each_batch() -> None:
    session = GraphSession()
    binding = CudaGraphBinding(session, ("input", "logits"))
    rng = np.random.default_rng(0)
    for _ in range(3):
        batch = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
        assert np.array_equal(binding.run(batch), session.answer(batch))
    assert session.made == 1
    assert session.bound_runs == 3


def test_another_shape_is_refused() -> None:
    binding = CudaGraphBinding(GraphSession(), ("input", "logits"))
    binding.run(np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(ModelError, match=r"serves one shape, \[2, 3, 8, 8\], got \[1, 3, 8, 8\]"):
        binding.run(np.zeros((1, 3, 8, 8), np.float32))


def test_the_engine_replays_a_graph_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("CUDAExecutionProvider",)
    choice = ProviderChoice(("CUDA",), names, ({"enable_cuda_graph": "1"},))
    monkeypatch.setattr(onnx_engine, "select_onnx_providers", lambda *_, **__: choice)
    settings = SessionSettings(cuda={"enable_cuda_graph": 1})
    request = EngineRequest("onnx", Path("none"), ("CUDA",), 2, settings)
    session = GraphSession()
    with OnnxEngine(request, session) as engine:
        batch = np.ones((2, 3, 8, 8), np.float32)
        assert np.array_equal(engine.run(batch), session.answer(batch))
        assert np.array_equal(engine.run(2 * batch), session.answer(2 * batch))
    assert session.made == 1
