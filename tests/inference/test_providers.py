import onnxruntime
import pytest

from opslib.core.errors import ParameterError, UnavailableError
from opslib.inference.onnx_engine import make_session_options
from opslib.inference.providers import (
    SessionSettings,
    check_providers_in_force,
    parse_providers,
    select_onnx_providers,
)

CPU, CUDA, TENSORRT = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)
BUILT_IN = (TENSORRT, CUDA, CPU)


def test_cuda_comes_before_cpu_in_whatever_order_they_are_asked_for() -> None:
    for asked in (("CUDA", "CPU"), ("CPU", "CUDA")):
        choice = select_onnx_providers(asked, available=BUILT_IN)
        assert choice.names == (CUDA, CPU)


def test_the_policy_gives_cuda_its_maximal_workspace() -> None:
    choice = select_onnx_providers(("CUDA", "CPU"), available=BUILT_IN)
    assert choice.options == ({"cudnn_conv_use_max_workspace": "1"}, {})


def test_tensorrt_is_off_unless_asked_for() -> None:
    assert TENSORRT not in select_onnx_providers(("CUDA", "CPU"), available=BUILT_IN).names
    asked = select_onnx_providers(("CPU", "TENSORRT"), available=BUILT_IN)
    assert asked.names == (TENSORRT, CPU)


def test_where_cuda_cannot_start_the_cpu_takes_over_and_the_reason_is_kept() -> None:
    choice = select_onnx_providers(
        ("CUDA", "CPU"), available=BUILT_IN, cuda_problem="no NVIDIA driver"
    )
    assert choice.names == (CPU,)
    assert choice.note == "CUDA cannot start: no NVIDIA driver"


def test_cuda_alone_is_unavailable_where_it_cannot_start() -> None:
    with pytest.raises(UnavailableError, match="CUDA cannot start: no NVIDIA driver"):
        select_onnx_providers(("CUDA",), available=BUILT_IN, cuda_problem="no NVIDIA driver")


def test_a_build_without_cuda_says_so() -> None:
    with pytest.raises(UnavailableError, match="build has no CUDAExecutionProvider"):
        select_onnx_providers(("CUDA",), available=(CPU,))


def test_a_session_that_silently_fell_back_is_noticed() -> None:
    alone = select_onnx_providers(("CUDA",), available=BUILT_IN)
    with pytest.raises(UnavailableError, match="CUDA was asked for, but the session runs on CPU"):
        check_providers_in_force(alone, [CPU])
    both = select_onnx_providers(("CUDA", "CPU"), available=BUILT_IN)
    assert check_providers_in_force(both, [CUDA, CPU]) == ("CUDA", None)
    provider, note = check_providers_in_force(both, [CPU])
    assert provider == "CPU"
    assert note is not None
    assert "running on CPU" in note


@pytest.mark.parametrize("text", ["", "GPU", "CUDA,CUDA", "CUDA,,TPU"])
def test_unknown_and_repeated_providers_are_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="--providers"):
        parse_providers(text)


def test_session_options_follow_the_settings() -> None:
    choice = select_onnx_providers(("CUDA",), available=BUILT_IN)
    settings = SessionSettings(
        graph_optimization_level="BASIC",
        intra_op_num_threads=3,
        allow_spinning=False,
        force_spinning_stop=True,
    )
    options = make_session_options(settings, choice)
    levels = onnxruntime.GraphOptimizationLevel
    assert options.graph_optimization_level == levels.ORT_ENABLE_BASIC
    assert options.intra_op_num_threads == 3
    for entry, value in (
        ("session.intra_op.allow_spinning", "0"),
        ("session.force_spinning_stop", "1"),
        ("session.disable_cpu_ep_fallback", "1"),
    ):
        assert options.get_session_config_entry(entry) == value
