"""What the rest of the house knows of the drill."""

from __future__ import annotations

from opslib.ops.drill.command import drill
from opslib.telling.operation import Operation, Records, lazily

DRILL = Operation(
    "drill",
    {"drill": drill},
    records=Records(
        "drill_",
        read=lazily("opslib.ops.drill.record:DrillRecord.read"),
        table=lazily("opslib.ops.drill.columns:snapshot"),
    ),
)
