"""What a person asks a benchmark for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from opslib.telling.operation import OperationRequest

InputsOption = Annotated[str | None, typer.Option(help='Images: "folder/**/*.jpg".')]
StrictOption = Annotated[bool, typer.Option(help="Refuse unreadable images.")]
BudgetOption = Annotated[float | None, typer.Option("--budget", help="Seconds for everything.")]
OnnxOption = Annotated[Path | None, typer.Option(help="ONNX file; default: the latest.")]


@dataclass(frozen=True)
class BenchRequest(OperationRequest):
    """What a person asks a benchmark for; None means what the configuration says."""

    engine: Annotated[str | None, typer.Option(help="onnx, torch or both.")] = None
    model: OnnxOption = None
    inputs: InputsOption = None
    batch: Annotated[tuple[int, ...] | None, typer.Option(help="Batch sizes: 1,2,4,8,16,32.")] = (
        None
    )
    threads: Annotated[int | None, typer.Option(help="CPU threads; 0: all usable.")] = None
    providers: Annotated[str | None, typer.Option(help="In order: CUDA,CPU.")] = None
    checkpoint: Annotated[Path | None, typer.Option(help="Torch side of both.")] = None
    budget_s: BudgetOption = None
    strict: StrictOption = False
