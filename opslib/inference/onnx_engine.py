"""ONNX Runtime behind the engine seam: one session, one batch size, provider checked."""

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ModelError, OpsError, UnavailableError
from opslib.core.files import sha256_tree
from opslib.core.host import usable_cpus
from opslib.core.models import ModelFiles, find_model_files
from opslib.inference.causes import shorten_error
from opslib.inference.engine import Engine, EngineFacts, EngineRequest, not_run
from opslib.inference.postprocess import count_classes, find_postprocess
from opslib.inference.providers import (
    ProviderChoice,
    SessionSettings,
    check_providers_in_force,
    select_onnx_providers,
)
from opslib.inference.signature import peek, read_operators

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_ERROR_ONLY = 3
# Of dynamic INT8: each takes one scale from the whole of its input, all images of a batch together.
_SCALES_BY_BATCH = re.compile(r"DynamicQuantize|(MatMul|Conv)Integer")


class OnnxEngine(Engine):
    """An ONNX Runtime session for one batch size; on CUDA with bound input and output."""

    def __init__(self, request: EngineRequest, session: Any = None) -> None:
        """Load the model, or take a ready `session` (tests pass a fake one); raises as
        `open_engine`."""
        self._path = request.path
        choice = select_onnx_providers(request.providers, cuda_options=request.settings.cuda)
        self._session = session or _load(request, choice)
        provider, note = check_providers_in_force(choice, self._session.get_providers())
        self._input = _single(self._session.get_inputs(), request)
        self._output = _logits(self._session.get_outputs(), request)
        self.facts = _describe(self._session, self._input, request, provider, note)
        self._dtype = np.dtype(self.facts.input_dtype)
        self._binding = None
        self._graph = None
        if provider == "CUDA" and str(request.settings.cuda.get("enable_cuda_graph", 0)) == "1":
            self._graph = CudaGraphBinding(self._session, (self._input.name, self._output))
        elif provider != "CPU":
            self._binding = self._session.io_binding()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the answers, float32 `[N, columns]`, of a float32 `[N, C, H, W]` batch."""
        try:
            answers: NDArray[Any] = self._run(batch.astype(self._dtype, copy=False))
            return answers.astype(np.float32, copy=False)
        except OpsError:
            raise
        except Exception as error:
            raise not_run(self._path, batch, shorten_error(error)) from error

    def _run(self, batch: NDArray[Any]) -> Any:
        if self._graph is not None:
            return self._graph.run(batch)
        if self._binding is None:
            return self._session.run([self._output], {self._input.name: batch})[0]
        self._binding.bind_cpu_input(self._input.name, batch)
        self._binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(self._binding)
        return self._binding.copy_outputs_to_cpu()[0]

    def close(self) -> None:
        """Free the session and its threads."""
        self._graph = self._binding = self._session = None


def make_session_options(settings: SessionSettings, choice: ProviderChoice) -> Any:
    """Return ONNX Runtime session options for `settings`.

    A count of threads of 0 is resolved here: ONNX Runtime would take as many as the machine has
    cores and pin them, whatever affinity and quota say.
    """
    import onnxruntime as ort

    level = settings.graph_optimization_level
    named = f"ORT_{level}" if level == "DISABLE_ALL" else f"ORT_ENABLE_{level}"
    options = ort.SessionOptions()
    options.log_severity_level = _ERROR_ONLY
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, named)
    options.execution_mode = getattr(ort.ExecutionMode, f"ORT_{settings.execution_mode}")
    options.intra_op_num_threads = settings.intra_op_num_threads or usable_cpus()
    options.inter_op_num_threads = settings.inter_op_num_threads or usable_cpus()
    if not settings.allow_spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if settings.force_spinning_stop:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if not choice.cpu_fallback:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def digest_optimized_graph(request: EngineRequest) -> str | None:
    """Return the SHA-256 of the model, weights included, as ONNX Runtime rewrites it for these
    settings (two with the same one differ in name alone), or None where a provider compiles its own
    engine."""
    choice = select_onnx_providers(request.providers, cuda_options=request.settings.cuda)
    with tempfile.TemporaryDirectory(prefix="pillops-graph-") as folder:
        try:
            options = make_session_options(request.settings, choice)
            options.optimized_model_filepath = f"{folder}/optimized.onnx"
            _start_session(find_model_files(request.path), options, choice)
        except Exception:  # ONNX Runtime's own classes share no base but Exception
            return None
        return sha256_tree([path for path in Path(folder).iterdir() if path.is_file()])


def _start_session(files: ModelFiles, options: Any, choice: ProviderChoice) -> Any:
    import onnxruntime as ort

    return ort.InferenceSession(
        os.fspath(files.path),
        sess_options=options,
        providers=list(choice.names),
        provider_options=list(choice.options),
    )


def _load(request: EngineRequest, choice: ProviderChoice) -> Any:
    import onnxruntime as ort

    files = find_model_files(request.path)
    ort.set_default_logger_severity(_ERROR_ONLY)
    if choice.names[0] != "CPUExecutionProvider":
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    options = make_session_options(request.settings, choice)
    if request.weights_in_memory and files.sidecars:
        weights = _read_weights(files)
        names, data = list(weights), list(weights.values())
        options.add_external_initializers_from_files_in_memory(names, data, [*map(len, data)])
    try:
        return _start_session(files, options, choice)
    except Exception as error:
        reason = shorten_error(error)
        if not choice.cpu_fallback and "fallback" in str(error):
            problem = f"{request.providers[0]} cannot run this model: {reason}"
            raise UnavailableError(problem) from error
        raise ModelError(f"{request.path}: ONNX Runtime cannot load it: {reason}") from error


def _read_weights(files: ModelFiles) -> dict[str, bytes]:
    """The bytes of each weights file, by the name that the model has for it."""
    try:
        return {
            path.relative_to(files.path.parent).as_posix(): path.read_bytes()
            for path in files.sidecars
        }
    except OSError as error:
        raise ModelError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _single(values: Any, request: EngineRequest) -> Any:
    if len(values) != 1 or values[0].type not in _DTYPES:
        described = ", ".join(f"{value.name}: {value.type}" for value in values)
        wanted = "expected one image input of floats"
        raise ModelError(f"{request.path}: {wanted}, the model has {described}")
    return values[0]


def _logits(outputs: Any, request: EngineRequest) -> str:
    """The name of the first output, which must be `[N, columns]`."""
    first = outputs[0]
    if first.type not in _DTYPES or (first.shape and len(first.shape) != 2):
        has = f"the model has {first.name}: {first.type} {first.shape}"
        raise ModelError(f"{request.path}: expected an output [N, classes] of floats, {has}")
    return str(first.name)


def _describe(
    session: Any, model_input: Any, request: EngineRequest, provider: str, note: str | None
) -> EngineFacts:
    settings = request.settings
    operators = peek(read_operators, request.path) or ()
    last = next(iter(session.get_outputs()[0].shape[-1:]), None)
    options = {
        "graph_optimization_level": settings.graph_optimization_level,
        "execution_mode": settings.execution_mode,
        "inter_op_num_threads": str(settings.inter_op_num_threads),
        "allow_spinning": str(settings.allow_spinning).lower(),
    }
    if settings.force_spinning_stop:
        options["force_spinning_stop"] = "true"
    in_force = session.get_provider_options().get(session.get_providers()[0], {})
    options.update({f"{provider.lower()}.{key}": str(value) for key, value in in_force.items()})
    return EngineFacts(
        engine="onnx",
        provider=provider,
        threads=settings.intra_op_num_threads or usable_cpus(),
        num_classes=count_classes(last) if isinstance(last, int) else None,
        input_shape=tuple(axis if isinstance(axis, int) else None for axis in model_input.shape),
        input_dtype=_DTYPES[model_input.type],
        options=options,
        note=note,
        postprocess=find_postprocess(request.path),
        scales_by_batch=any(map(_SCALES_BY_BATCH.match, operators)),
    )


class CudaGraphBinding:
    """One session's input and output on the card, made at the first run and reused after it.

    A captured graph replays fixed addresses, so every later batch is copied into the same place
    and must have the first one's shape. The copies count, as they do without a graph.
    """

    def __init__(self, session: Any, names: tuple[str, str]) -> None:
        self._session = session
        self._input_name, self._output_name = names
        self._binding: Any = None
        self._input: Any = None
        self._output: Any = None
        self._shape: tuple[int, ...] = ()

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return the output in host memory for a batch in host memory."""
        if self._binding is None:
            self._capture(batch)
        if batch.shape != self._shape:
            shapes = f"{list(self._shape)}, got {list(batch.shape)}"
            raise ModelError(f"a captured CUDA graph serves one shape, {shapes}")
        self._input.update_inplace(np.ascontiguousarray(batch))
        self._session.run_with_iobinding(self._binding)
        answer: NDArray[Any] = self._output.numpy()
        return answer

    def _capture(self, batch: NDArray[Any]) -> None:
        binding = self._session.io_binding()
        self._input = _value_on_card(np.ascontiguousarray(batch))
        binding.bind_ortvalue_input(self._input_name, self._input)
        shape = [batch.shape[0], int(self._session.get_outputs()[0].shape[-1])]
        self._output = _value_on_card(np.zeros(shape, dtype=batch.dtype))
        binding.bind_ortvalue_output(self._output_name, self._output)
        self._binding, self._shape = binding, batch.shape


def _value_on_card(array: NDArray[Any]) -> Any:
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
