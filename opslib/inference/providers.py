"""Execution providers: what was asked for, what this host can run, what is really in force."""

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from opslib.core.errors import OpsError, ParameterError, UnavailableError
from opslib.inference.causes import shorten_error

PROVIDER_NAMES = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TENSORRT": "TensorrtExecutionProvider",
}
SHORT_NAMES = {full: short for short, full in PROVIDER_NAMES.items()}
DEFAULT_CUDA_OPTIONS: Mapping[str, str | int] = {"cudnn_conv_use_max_workspace": 1}


@dataclass(frozen=True)
class ProviderChoice:
    """Providers for one session, in order, and the reason where fewer than asked for are used.

    `names` are ONNX Runtime's full names; `cpu_fallback` says whether the CPU was asked for.
    """

    requested: tuple[str, ...]
    names: tuple[str, ...]
    options: tuple[dict[str, str], ...]
    note: str | None = None

    @property
    def cpu_fallback(self) -> bool:
        """Whether nodes and whole sessions may fall back to the CPU provider."""
        return PROVIDER_NAMES["CPU"] in self.names


@dataclass(frozen=True)
class SessionSettings:
    """Session options in ONNX Runtime's own spelling; the defaults are the provider policy."""

    graph_optimization_level: str = "ALL"
    execution_mode: str = "SEQUENTIAL"
    intra_op_num_threads: int = 0
    inter_op_num_threads: int = 0
    allow_spinning: bool = True
    force_spinning_stop: bool = False
    cuda: Mapping[str, str | int] = field(default_factory=lambda: dict(DEFAULT_CUDA_OPTIONS))


def parse_providers(text: str | Iterable[str]) -> tuple[str, ...]:
    """Return short provider names in the order given, from `CUDA,CPU` or a sequence; refuse what is
    unknown or stands twice, and none at all."""
    parts = text.split(",") if isinstance(text, str) else list(text)
    names = tuple(part.strip().upper() for part in parts if part.strip())
    known = ", ".join(PROVIDER_NAMES)
    for name in names:
        if name not in PROVIDER_NAMES:
            raise ParameterError(f"--providers: unknown provider {name!r}; expected {known}")
    if not names or len(set(names)) != len(names):
        problem = f"got {text!r}; expected names such as CUDA,CPU, once each"
        raise ParameterError(f"--providers: {problem}")
    return names


def select_onnx_providers(
    requested: Sequence[str],
    *,
    cuda_options: Mapping[str, str | int] = DEFAULT_CUDA_OPTIONS,
    available: Sequence[str] | None = None,
    cuda_problem: str | None = None,
) -> ProviderChoice:
    """Return the providers of a session: CUDA before CPU, TensorRT only where asked for.

    ONNX Runtime is asked what it has (`available`), and its library loaded to see why CUDA cannot
    start (`cuda_problem`), unless both are given. An `UnavailableError` is the reason why none of
    those `requested`, by their short names, can run here.
    """
    if available is None:
        import onnxruntime

        available = onnxruntime.get_available_providers()
        wants_card = any(name != "CPU" for name in requested)
        cuda_problem = find_cuda_problem(available) if wants_card else None
    order = sorted(parse_providers(requested), key=["TENSORRT", "CUDA", "CPU"].index)
    names, options, refused = [], [], []
    for short in order:
        full = PROVIDER_NAMES[short]
        problem = None if short == "CPU" else cuda_problem
        if full not in available:
            problem = f"this ONNX Runtime build has no {full}"
        if problem:
            refused.append(f"{short} cannot start: {problem}")
            continue
        names.append(full)
        given = cuda_options if short == "CUDA" else {}
        options.append({key: str(value) for key, value in given.items()})
    note = "; ".join(refused) or None
    if not names:
        raise UnavailableError(note or "no provider was asked for")
    return ProviderChoice(tuple(requested), tuple(names), tuple(options), note)


def find_cuda_problem(available: Sequence[str]) -> str | None:
    """Return why CUDA cannot start on this host, or None where a driver finds a card.

    The list of available providers only says what was compiled in. Whether the provider's own
    libraries load shows when a session starts; see `check_providers_in_force`.
    """
    if PROVIDER_NAMES["CUDA"] not in available:
        return "this ONNX Runtime build has no CUDAExecutionProvider"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1 is missing)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return "the NVIDIA driver does not start"
    return None if count.value else "the NVIDIA driver finds no card"


def check_providers_in_force(
    choice: ProviderChoice, in_force: Sequence[str]
) -> tuple[str, str | None]:
    """Return the short name of the provider that leads a session, and a note where it is not the
    first one asked for; refuse one that was not asked for at all."""
    leading = in_force[0] if in_force else "none"
    if leading == choice.names[0]:
        return SHORT_NAMES[leading], choice.note
    wanted = SHORT_NAMES[choice.names[0]]
    got = SHORT_NAMES.get(leading, leading)
    if leading in choice.names:
        note = f"{wanted} could not start its libraries; running on {got}"
        return got, "; ".join(filter(None, (choice.note, note)))
    raise UnavailableError(f"{wanted} was asked for, but the session runs on {got}")


def probe_provider(name: str) -> str | None:
    """Return why no session starts on provider `name` (`CUDA`, `CPU`, `TENSORRT`), None if one
    does: what a build lists proves nothing, its libraries are loaded by the first session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        choice = select_onnx_providers((name,))
        names = list(choice.names)
        session = onnxruntime.InferenceSession(_identity_model(), options, providers=names)
        check_providers_in_force(choice, session.get_providers())
    except OpsError as error:
        return str(error).removeprefix(f"{name} cannot start: ")
    except Exception as error:  # ONNX Runtime's own errors share no base class
        return shorten_error(error)
    return None


def _identity_model() -> bytes:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "probe", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())
