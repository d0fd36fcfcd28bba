"""Opening the engine that a request describes; the library behind it is imported only then."""

from opslib.core.errors import ParameterError
from opslib.inference.engine import Engine, EngineRequest


def open_engine(request: EngineRequest) -> Engine:
    """Return the engine that `request` describes, loaded.

    Raises:
        ModelError: the file is missing, damaged or of another kind.
        UnavailableError: this host cannot run it on the providers asked for.
        ParameterError: the engine's name is unknown.
    """
    if request.engine == "onnx":
        from opslib.inference.onnx_engine import OnnxEngine

        return OnnxEngine(request)
    if request.engine == "torch":
        from opslib.inference.torch_engine import TorchEngine

        return TorchEngine(request)
    unknown = f"--engine: unknown engine {request.engine!r}"
    raise ParameterError(f"{unknown}; expected onnx, torch or both")
