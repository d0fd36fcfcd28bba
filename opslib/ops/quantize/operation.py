"""What the rest of the house knows of quantizing."""

from __future__ import annotations

from opslib.ops.quantize.command import promote, quantize
from opslib.telling.operation import Operation, Records, lazily

QUANTIZE = Operation(
    "quantize",
    {"quantize": quantize, "promote": promote},
    records=Records(
        "quantize_",
        read=lazily("opslib.ops.quantize.record:QuantizeRecord.read"),
        table=lazily("opslib.ops.quantize.columns:snapshot"),
    ),
)
