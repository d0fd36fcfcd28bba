"""Does an execution provider really start here? A session on a one-node model tells."""

from __future__ import annotations

from opslib.core.errors import OpsError
from opslib.inference.providers import check_providers_in_force, select_onnx_providers
from opslib.inference.runtime_words import shorten_error


def probe_provider(name: str) -> str | None:
    """Return why no session starts on provider `name` (`CUDA`, `CPU`, `TENSORRT`), None if one
    does.

    What a build lists as available proves nothing: its libraries are loaded by the first session.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        choice = select_onnx_providers((name,))
        session = onnxruntime.InferenceSession(
            _identity_model(), options, providers=list(choice.names)
        )
        check_providers_in_force(choice, session.get_providers())
    except OpsError as error:
        return str(error).removeprefix(f"{name} cannot start: ")
    except Exception as error:  # ONNX Runtime's own errors share no base class
        return shorten_error(error)
    return None


def _identity_model() -> bytes:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "probe", ends[:1], ends[1:]
    )
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())
