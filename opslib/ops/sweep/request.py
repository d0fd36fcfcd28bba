"""What a person asks a sweep for."""

from dataclasses import dataclass
from typing import Annotated

import typer

from opslib.ops.bench.request import BudgetOption, InputsOption, OnnxOption
from opslib.telling.operation import OperationRequest


@dataclass(frozen=True)
class SweepRequest(OperationRequest):
    """What a person asks a sweep for; None means what the configuration says. The objective `p50`
    looks at the smallest batch."""

    model: OnnxOption = None
    inputs: InputsOption = None
    objective: Annotated[str | None, typer.Option(help="throughput or p50.")] = None
    batch: Annotated[tuple[int, ...] | None, typer.Option(help="Batch sizes: 1,8.")] = None
    budget_s: BudgetOption = None
    fresh: Annotated[bool, typer.Option(help="Forget an interrupted sweep.")] = False
