import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest

from opslib.core.errors import ModelError, UnavailableError
from opslib.inference import providers
from opslib.inference.engine import EngineRequest
from opslib.inference.onnx_engine import OnnxEngine
from opslib.inference.opening import open_engine
from tests.inference.fake_session import FakeSession
from tests.models import write_onnx

BATCH = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)


def request(path: Path, *names: str, engine: str = "onnx") -> EngineRequest:
    return EngineRequest(engine=engine, path=path, providers=names or ("CPU",), batch_size=2)


@pytest.fixture
def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "find_cuda_problem", lambda _available: None)


def test_a_foreign_model_is_read_from_its_own_signature(tmp_path: Path) -> None:
    with open_engine(request(write_onnx(tmp_path / "m.onnx", classes=5))) as engine:
        assert engine.run(BATCH).shape == (2, 5)
        assert engine.facts.input_shape == (None, 3, 16, 16)
        assert engine.facts.num_classes == 5
        assert (engine.facts.provider, engine.facts.note) == ("CPU", None)
        assert engine.facts.options["graph_optimization_level"] == "ALL"


def test_a_half_precision_model_is_fed_half_and_answers_in_single(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", dtype=onnx.TensorProto.FLOAT16)
    with open_engine(request(path)) as engine:
        assert engine.facts.input_dtype == "float16"
        assert engine.run(BATCH).dtype == np.float32


def test_a_model_with_a_sidecar_runs(tmp_path: Path) -> None:
    alone = write_onnx(tmp_path / "a.onnx")
    split = write_onnx(tmp_path / "b.onnx", sidecar=True)
    with open_engine(request(alone)) as one, open_engine(request(split)) as other:
        np.testing.assert_array_equal(one.run(BATCH), other.run(BATCH))


def test_a_damaged_model_is_refused_by_name(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx: ONNX Runtime cannot load it"):
        open_engine(request(path))


def test_a_model_that_takes_no_image_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    del model.graph.node[:]
    model.graph.node.append(onnx.helper.make_node("Cast", ["input"], ["logits"], to=1))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="expected one image input of floats"):
        open_engine(request(path))


def test_without_a_card_both_providers_run_on_cpu_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "find_cuda_problem", lambda _available: "no NVIDIA driver")
    path = write_onnx(tmp_path / "m.onnx")
    with open_engine(request(path, "CUDA", "CPU")) as engine:
        assert engine.facts.provider == "CPU"
        assert engine.facts.note == "CUDA cannot start: no NVIDIA driver"
    with pytest.raises(UnavailableError, match="CUDA cannot start: no NVIDIA driver"):
        open_engine(request(path, "CUDA"))


@pytest.mark.usefixtures("pretend_cuda")
def test_on_cuda_input_and_output_are_bound(tmp_path: Path) -> None:
    options = {"CUDAExecutionProvider": {"cudnn_conv_use_max_workspace": "1"}}
    session = FakeSession(classes=4, img_size=16, options=options)
    with OnnxEngine(request(tmp_path / "m.onnx", "CUDA"), session) as engine:
        assert engine.run(BATCH).shape == (2, 4)
        assert session.bound_runs == 1
        assert engine.facts.provider == "CUDA"
        assert engine.facts.options["cuda.cudnn_conv_use_max_workspace"] == "1"


@pytest.mark.usefixtures("pretend_cuda")
def test_a_cpu_session_is_never_labelled_cuda(tmp_path: Path) -> None:
    session = FakeSession(providers=["CPUExecutionProvider"])
    with pytest.raises(UnavailableError, match="CUDA was asked for, but the session runs on CPU"):
        OnnxEngine(request(tmp_path / "m.onnx", "CUDA"), session)
    engine = OnnxEngine(request(tmp_path / "m.onnx", "CUDA", "CPU"), session)
    assert engine.facts.provider == "CPU"
    assert "CUDA could not start" in (engine.facts.note or "")


def test_a_batch_over_which_onnx_runtime_raises_is_told_in_a_class_of_ours(tmp_path: Path) -> None:
    class RuntimeExceptionError(Exception):
        """As ONNX Runtime's own: of no base that others know, and not picklable."""

        def __init__(self, code: int, said: str) -> None:
            super().__init__(said)

    class Broken(FakeSession):
        def run(self, *_: object) -> list[np.ndarray]:
            raise RuntimeExceptionError(1, "allocation\n failed")

    engine = OnnxEngine(request(tmp_path / "m.onnx"), Broken(["CPUExecutionProvider"]))
    with pytest.raises(UnavailableError) as caught:
        engine.run(BATCH)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == "m.onnx: batch 2 does not run: allocation failed"


def test_a_batch_over_which_a_torch_module_raises_is_told_in_a_class_of_ours(
    tmp_path: Path,
) -> None:
    path = write_checkpoint(tmp_path, state())
    with (
        open_engine(torch_request(path, factory="nets:linear")) as engine,
        pytest.raises(UnavailableError, match=r"best\.pt: batch 2 does not run: mat1"),
    ):
        engine.run(np.zeros((2, 4, 1, 1), np.float32))


@pytest.mark.gpu
def test_on_a_real_card_the_session_runs_on_cuda(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    with open_engine(request(path, "CUDA")) as card, open_engine(request(path)) as host:
        assert card.facts.provider == "CUDA"
        np.testing.assert_allclose(card.run(BATCH), host.run(BATCH), atol=1e-3)


def write_checkpoint(folder: Path, payload: object) -> Path:
    import torch

    (folder / "nets.py").write_text(
        "import torch\n"
        "def linear(classes):\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),"
        " torch.nn.Dropout(0.5), torch.nn.Linear(3, classes))\n"
    )
    path = folder / "best.pt"
    torch.save(payload, path)
    return path


def state(classes: int = 4) -> dict[str, object]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return {
        "3.weight": torch.randn(classes, 3, generator=generator),
        "3.bias": torch.randn(classes, generator=generator),
    }


def torch_request(path: Path, **changes: object) -> EngineRequest:
    return EngineRequest(engine="torch", path=path, code_root=path.parent, **changes)  # type: ignore[arg-type]


def test_a_checkpoint_names_its_own_factory_and_runs_in_eval_mode(tmp_path: Path) -> None:
    payload = {"state_dict": state(), "factory": "nets:linear", "num_classes": 4, "img_size": 16}
    path = write_checkpoint(tmp_path, payload)
    with open_engine(torch_request(path)) as engine:
        first = engine.run(BATCH)
        np.testing.assert_array_equal(first, engine.run(BATCH))
        assert first.shape == (2, 4)
        assert engine.facts.input_shape == (None, 3, 16, 16)


def test_a_bare_state_dict_needs_a_configured_factory(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, state())
    with pytest.raises(ModelError, match=r"names no factory; set torch\.factory"):
        open_engine(torch_request(path))
    with open_engine(torch_request(path, factory="nets:linear")) as engine:
        assert engine.facts.num_classes == 4


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    payload = {"state_dict": state(5), "factory": "nets:linear", "num_classes": 4}
    path = write_checkpoint(tmp_path, payload)
    with pytest.raises(ModelError, match="do not fit nets:linear"):
        open_engine(torch_request(path))


def test_a_pickle_that_could_run_code_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, {"state_dict": state(), "evil": print})
    with pytest.raises(ModelError, match=r"best\.pt: Torch cannot load it"):
        open_engine(torch_request(path))


def test_torchscript_and_exported_programs_run(tmp_path: Path) -> None:
    import torch

    write_checkpoint(tmp_path, {})
    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4)
    ).eval()
    expected = network(torch.from_numpy(BATCH)).detach().numpy()
    torch.jit.trace(network, torch.from_numpy(BATCH)).save(tmp_path / "script.pt")
    torch.export.save(
        torch.export.export(network, (torch.from_numpy(BATCH),)), tmp_path / "program.pt2"
    )
    for name in ("script.pt", "program.pt2"):
        with open_engine(torch_request(tmp_path / name)) as engine:
            np.testing.assert_allclose(engine.run(BATCH), expected, atol=1e-5)


def test_torch_without_a_card_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    payload = {"state_dict": state(), "factory": "nets:linear", "num_classes": 4}
    path = write_checkpoint(tmp_path, payload)
    with open_engine(torch_request(path, providers=("CUDA", "CPU"))) as engine:
        assert engine.facts.provider == "CPU"
        assert "finds no card" in (engine.facts.note or "")
    with pytest.raises(UnavailableError, match="finds no card"):
        open_engine(torch_request(path, providers=("CUDA",)))


def test_onnx_runtime_logs_only_errors(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_engine(request(write_onnx(tmp_path / "m.onnx"), "CUDA", "CPU")):
        pass
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("sidecar", [False, True])
def test_weights_read_into_memory_are_not_mapped(tmp_path: Path, sidecar: bool) -> None:
    batch = np.ones((2, 3, 16, 16), np.float32)
    with open_engine(EngineRequest("onnx", write_onnx(tmp_path / "a.onnx"))) as other:
        expected = other.run(batch)
    path = write_onnx(tmp_path / "m.onnx", sidecar=sidecar)
    with open_engine(EngineRequest("onnx", path, weights_in_memory=True)) as engine:
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
        assert np.array_equal(engine.run(batch), expected)
