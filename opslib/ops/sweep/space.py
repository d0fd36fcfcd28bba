"""Which combinations a sweep asks for, and which of them are really the same session.

The required grid is providers x graph level x cuDNN workspace. Beside it stand the axes that move
a convolutional network: on the CPU threads x spinning at every graph level, on CUDA algorithm
search x layout x TF32 x CUDA graphs at the default level, and TensorRT once.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from opslib.core.errors import UnavailableError
from opslib.core.host import usable_cpus
from opslib.core.sections import SweepSection
from opslib.inference.providers import (
    DEFAULT_CUDA_OPTIONS,
    PROVIDER_NAMES,
    find_cuda_problem,
    select_onnx_providers,
)
from opslib.ops.sweep.record import SweepOptions

PROVIDER_LISTS = (("CUDA",), ("CUDA", "CPU"), ("CPU",))
GRAPH_LEVELS = ("DISABLE_ALL", "BASIC", "EXTENDED", "ALL")
WORKSPACES = (0, 1)
CUDA_OPTION_DEFAULTS: dict[str, str | int] = {
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "cudnn_conv_use_max_workspace": 1,
    "prefer_nhwc": 0,
    "use_tf32": 1,
    "enable_cuda_graph": 0,
}
TENSORRT_LIBRARY = "libnvinfer.so.10"


@dataclass(frozen=True)
class SweepHost:
    """What of a host decides which combinations differ and which can run."""

    available: tuple[str, ...]
    cuda_problem: str | None
    tensorrt_problem: str | None
    usable_cpus: int

    @property
    def has_cuda(self) -> bool:
        """Whether CUDA starts here."""
        return self.cuda_problem is None


def find_sweep_host() -> SweepHost:
    """Return what this host can run."""
    import onnxruntime

    available = tuple(onnxruntime.get_available_providers())
    cuda_problem = find_cuda_problem(available)
    return SweepHost(
        available=available,
        cuda_problem=cuda_problem,
        tensorrt_problem=find_tensorrt_problem(available, cuda_problem),
        usable_cpus=usable_cpus(),
    )


def find_tensorrt_problem(available: Sequence[str], cuda_problem: str | None) -> str | None:
    """Return why TensorRT cannot start here, or None where its libraries load."""
    import ctypes

    if cuda_problem is not None:
        return cuda_problem
    if PROVIDER_NAMES["TENSORRT"] not in available:
        return "this ONNX Runtime build has no TensorrtExecutionProvider"
    try:
        ctypes.CDLL(TENSORRT_LIBRARY)
    except OSError:
        return f"TensorRT is not installed ({TENSORRT_LIBRARY} is missing)"
    return None


def list_options(section: SweepSection, host: SweepHost) -> tuple[SweepOptions, ...]:
    """Return every requested set of options once, the default first."""
    wanted = itertools.chain(
        [SweepOptions()], required_grid(), cpu_axes(section, host), cuda_axes(section, host)
    )
    unique: dict[str, SweepOptions] = {}
    for one in wanted:
        unique.setdefault(repr(one.flat()), one)
    return tuple(unique.values())


def required_grid() -> Iterable[SweepOptions]:
    """Yield providers x graph level x cuDNN workspace."""
    for providers, level, workspace in itertools.product(PROVIDER_LISTS, GRAPH_LEVELS, WORKSPACES):
        yield SweepOptions(
            providers=providers,
            graph_optimization_level=level,
            cuda={"cudnn_conv_use_max_workspace": workspace},
        )


def cpu_axes(section: SweepSection, host: SweepHost) -> Iterable[SweepOptions]:
    """Yield threads x spinning x graph level on the CPU. Where CUDA does not start the default's
    own provider list stays: it means the CPU here, and a recommendation shall not pin a host to its
    CPU because its driver was away."""
    providers = ("CPU",) if host.has_cuda else SweepOptions().providers
    threads = thread_counts(host) if section.threads is None else section.threads
    for level, count, spinning in itertools.product(GRAPH_LEVELS, threads, section.spinning):
        yield SweepOptions(
            providers=providers,
            graph_optimization_level=level,
            intra_op_num_threads=count,
            allow_spinning=spinning,
        )


def thread_counts(host: SweepHost) -> tuple[int, ...]:
    """Return the thread counts worth trying: all usable processors, which 0 means, one and half."""
    return (0, *sorted({1, max(1, host.usable_cpus // 2)} - {host.usable_cpus}))


def cuda_axes(section: SweepSection, host: SweepHost) -> Iterable[SweepOptions]:
    """Yield the CUDA options crossed with each other, and TensorRT; nothing without a card."""
    if not host.has_cuda:
        return
    names = ("cudnn_conv_algo_search", "prefer_nhwc", "use_tf32", "enable_cuda_graph")
    for values in itertools.product(*(getattr(section, name) for name in names)):
        given = dict(zip(names, values, strict=True))
        extra = {name: one for name, one in given.items() if one != CUDA_OPTION_DEFAULTS[name]}
        yield SweepOptions(cuda={**DEFAULT_CUDA_OPTIONS, **extra})
    if section.tensorrt:
        yield SweepOptions(providers=("TENSORRT", "CUDA", "CPU"))


def effective_options(options: SweepOptions, host: SweepHost) -> tuple[tuple[str, str], ...]:
    """Return what of the options has an effect on this host, without the graph level. Two sets with
    the same answer and the same optimized graph are the same session: cuDNN options mean nothing on
    the CPU, spinning nothing to a single thread. Raises UnavailableError: this host cannot run
    them; the message is the reason."""
    if "TENSORRT" in options.providers and host.tensorrt_problem:
        raise UnavailableError(f"TENSORRT cannot start: {host.tensorrt_problem}")
    choice = select_onnx_providers(
        options.providers, available=host.available, cuda_problem=host.cuda_problem
    )
    parts = {"providers": choice.names[0]}
    threads = options.intra_op_num_threads or host.usable_cpus
    parts["threads"] = str(threads)
    parts["spinning"] = "none" if threads == 1 else str(options.allow_spinning).lower()
    if choice.names[0] != PROVIDER_NAMES["CPU"]:
        in_force = {**CUDA_OPTION_DEFAULTS, **options.cuda}
        parts |= {f"cuda.{name}": str(value) for name, value in in_force.items()}
    return tuple(sorted(parts.items()))


def uses_tf32(options: SweepOptions, provider: str) -> bool:
    """Whether convolutions may round their factors to TF32: CUDA does unless it is told not to."""
    value = options.cuda.get("use_tf32", CUDA_OPTION_DEFAULTS["use_tf32"])
    return provider != "CPU" and str(value) == "1"
