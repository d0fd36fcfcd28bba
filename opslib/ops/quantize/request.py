"""What a person asks a quantization for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from opslib.ops.bench.request import StrictOption
from opslib.telling.operation import OperationRequest

SamplesOption = Annotated[
    str | None, typer.Option("--n-samples", help="Validation images: a number or all.")
]
DropOption = Annotated[
    float | None, typer.Option("--max-drop", help="Points of top-1 that may be lost.")
]


@dataclass(frozen=True)
class QuantizeRequest(OperationRequest):
    """What a person asks for; None means what the configuration says. Without `out` the required
    variant is written only where all are kept."""

    model: Annotated[Path | None, Option(help="Float32 ONNX; default: the latest.")] = None
    out: Annotated[Path | None, Option(help="Where the dynamic INT8 model goes.")] = None
    samples: SamplesOption = None
    max_drop_pp: DropOption = None
    inputs: Annotated[str | None, Option(help='Validation images: "val/**/*.jpg".')] = None
    calibration: Annotated[str | None, Option(help="Images for static INT8: a glob.")] = None
    budget_s: Annotated[float | None, Option("--budget", help="Seconds for timing.")] = None
    require_labels: Annotated[bool, Option(help="Refuse images without labels.")] = False
    strict: StrictOption = False
