"""What a sweep of the service is asked for, resolved and checked before any time is spent."""

from dataclasses import dataclass

from opslib.core.config import Config
from opslib.core.errors import ParameterError
from opslib.core.kinds import Kind, pick_classifier
from opslib.ops.bench.request import BenchRequest
from opslib.ops.bench.setup import BenchSetup, prepare_bench
from opslib.ops.served_sweep.record import Goal
from opslib.ops.served_sweep.request import ServedSweepRequest

OBJECTIVES = ("throughput", "p99")
FASTEST_PER_S = 100_000.0


@dataclass(frozen=True)
class ServedSetup:
    """A request with nothing left open: model, images and budget as a benchmark has them, the kind
    of the model, and the goal."""

    bench: BenchSetup
    kind: Kind
    goal: Goal


def prepare_served(config: Config, request: ServedSweepRequest) -> ServedSetup:
    """Return `request` resolved against `config`. Raises UsageError: something is missing, damaged,
    unknown or impossible; nothing was written."""
    goal = choose_goal(config, request)
    kind = pick_classifier(config)
    section = config.sweep
    asked = BenchRequest(
        engine="onnx",
        model=request.model,
        inputs=request.inputs,
        batch=(1,),
        budget_s=section.served_budget_s if request.budget_s is None else request.budget_s,
    )
    return ServedSetup(prepare_bench(config, asked), kind, goal)


def choose_goal(config: Config, request: ServedSweepRequest) -> Goal:
    """Return what is measured. Raises ParameterError: the objective is unknown, a value is
    impossible or missing, or belongs to the other objective."""
    section, objective = config.sweep, request.objective
    if objective not in OBJECTIVES:
        expected = " or ".join(OBJECTIVES)
        raise ParameterError(f"--objective: unknown objective {objective!r}; expected {expected}")
    limit_ms, rate_per_s = request.p99_limit_ms, request.rate_per_s
    if objective == "throughput":
        if rate_per_s is not None:
            raise ParameterError("--rate: belongs to --objective p99; throughput finds the rate")
        limit_ms = section.p99_limit_ms if limit_ms is None else limit_ms
        if not 0 < limit_ms < float("inf"):
            raise ParameterError(f"--p99-limit: got {limit_ms:g}; expected milliseconds above 0")
        return Goal(objective="throughput", p99_limit_ms=limit_ms)
    if limit_ms is not None:
        raise ParameterError("--p99-limit: belongs to --objective throughput; p99 is what is found")
    rate_per_s = section.rate_per_s if rate_per_s is None else rate_per_s
    if rate_per_s is None:
        raise ParameterError("--rate: missing; --objective p99 needs it, or sweep.rate_per_s")
    if not 0 < rate_per_s <= FASTEST_PER_S:
        raise ParameterError(
            f"--rate: got {rate_per_s:g}; expected requests a second above 0 to {FASTEST_PER_S:g}"
        )
    return Goal(objective="p99", rate_per_s=rate_per_s)
