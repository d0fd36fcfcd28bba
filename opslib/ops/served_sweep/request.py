"""What a person asks a sweep of the service for."""

from dataclasses import dataclass
from typing import Annotated

import typer

from opslib.ops.bench.request import BudgetOption, InputsOption, OnnxOption
from opslib.telling.operation import OperationRequest


@dataclass(frozen=True)
class ServedSweepRequest(OperationRequest):
    """What a person asks a sweep of the service for; None means what the configuration says."""

    model: OnnxOption = None
    inputs: InputsOption = None
    objective: Annotated[str, typer.Option(help="throughput or p99.")] = "throughput"
    p99_limit_ms: Annotated[
        float | None, typer.Option("--p99-limit", help="Milliseconds, for throughput.")
    ] = None
    rate_per_s: Annotated[
        float | None, typer.Option("--rate", help="Requests a second, for p99.")
    ] = None
    budget_s: BudgetOption = None
    fresh: Annotated[bool, typer.Option(help="Forget an interrupted sweep.")] = False
