"""From requested combinations to sessions that differ: one arm for each, the rest equivalent."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import UnavailableError
from opslib.core.files import sha256_bytes
from opslib.core.sections import ParitySection
from opslib.inference.engine import EngineRequest
from opslib.inference.parity import check_parity
from opslib.inference.providers import select_onnx_providers
from opslib.ops.sweep.record import SweepOptions
from opslib.ops.sweep.space import SweepHost, effective_options

DigestGraph = Callable[[SweepOptions], str | None]


@dataclass(frozen=True)
class Arm:
    """One session that differs from all others; `options` are the simplest that give it. `row` is
    the number of the row it is reported in; `key` says whether a kept trial is its own."""

    row: int
    batch_size: int
    options: SweepOptions
    request: EngineRequest
    graph_sha256: str | None
    key: str

    @property
    def label(self) -> str:
        """Its differences from the default."""
        return self.options.label


@dataclass(frozen=True)
class Line:
    """One requested combination: its arm's row, or why it cannot run; `note` tells a fallback."""

    number: int
    batch_size: int
    options: SweepOptions
    arm_row: int | None = None
    reason: str | None = None
    note: str | None = None


def make_arms(
    options: Sequence[SweepOptions],
    batch_sizes: Sequence[int],
    host: SweepHost,
    base: EngineRequest,
    *,
    digest_graph: DigestGraph,
    identity: Sequence[str],
    fixed_batch: int | None = None,
) -> tuple[tuple[Line, ...], tuple[Arm, ...]]:
    """Return a line for every combination and batch size, and one arm for each distinct session.
    `base`: the engine request that is varied. `digest_graph`: the digest of a combination's
    optimized model, None where there is none. `identity`: what else decides a figure: model, host,
    versions, images. `fixed_batch`: the only batch size that the model takes, if so."""
    lines: list[Line] = []
    groups: dict[tuple[object, ...], list[Line]] = {}
    for batch_size, one in itertools.product(batch_sizes, options):
        line, key = _resolve(one, batch_size, len(lines) + 1, host, digest_graph, fixed_batch)
        lines.append(line)
        if key is not None:
            groups.setdefault(key, []).append(line)
    arms: list[Arm] = []
    row_of: dict[int, int] = {}
    for key, group in groups.items():
        simplest = min(group, key=lambda line: (len(line.options.changes()), line.number))
        row_of |= {line.number: simplest.number for line in group}
        arms.append(
            Arm(
                row=simplest.number,
                batch_size=simplest.batch_size,
                options=simplest.options,
                request=make_request(base, simplest.options, simplest.batch_size),
                graph_sha256=key[1] if isinstance(key[1], str) else None,
                key=sha256_bytes(repr((tuple(identity), key)).encode())[:32],
            )
        )
    return tuple(replace(line, arm_row=row_of.get(line.number)) for line in lines), tuple(arms)


def make_request(base: EngineRequest, options: SweepOptions, batch_size: int) -> EngineRequest:
    """Return the engine request of one combination."""
    return replace(
        base, providers=options.providers, settings=options.settings(), batch_size=batch_size
    )


def _resolve(
    options: SweepOptions,
    batch_size: int,
    number: int,
    host: SweepHost,
    digest_graph: DigestGraph,
    fixed_batch: int | None,
) -> tuple[Line, tuple[object, ...] | None]:
    line = Line(number, batch_size, options)
    if fixed_batch is not None and fixed_batch != batch_size:
        return replace(line, reason=f"the model's batch size is fixed at {fixed_batch}"), None
    try:
        effective = effective_options(options, host)
    except UnavailableError as error:
        return replace(line, reason=str(error)), None
    choice = select_onnx_providers(
        options.providers, available=host.available, cuda_problem=host.cuda_problem
    )
    graph = digest_graph(options)
    identity = graph or (options.graph_optimization_level, choice.names)
    return replace(line, note=choice.note), (batch_size, identity, effective)


MAX_DIFF = {"float32": 1e-3, "tf32": 1e-2, "float16": 5e-2}


def arithmetic_of(input_dtype: str, *, tf32: bool) -> str:
    """Return which arithmetic decides the tolerance: `float16`, `tf32` or `float32`."""
    return "float16" if input_dtype == "float16" else "tf32" if tf32 else "float32"


def check_candidate(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    limits: ParitySection,
    arithmetic: str,
) -> tuple[float, str | None]:
    """Return the largest difference of two models' probabilities and why it is too large, or None.
    Beside the export's limits, no probability may move by more than 1e-3. TF32 keeps 10 of 23
    mantissa bits of each factor, so ten times that is allowed there, and float16 fifty times."""
    result = check_parity(reference, candidate, limits, half_precision=arithmetic == "float16")
    difference, allowed = float(np.abs(reference - candidate).max()), MAX_DIFF[arithmetic]
    if not result.passed:
        return difference, result.reason
    far = difference > allowed
    told = f"a probability moved by {difference:.2g}, {allowed:g} is allowed"
    return difference, told if far else None
