"""What the rest of the house knows of the sweep."""

from __future__ import annotations

from opslib.ops.sweep.command import apply, sweep
from opslib.telling.operation import Operation, Records, lazily

SWEEP = Operation(
    "sweep",
    {"sweep": sweep, "apply": apply},
    records=Records(
        "ort_bench_",
        read=lazily("opslib.ops.sweep.record:SweepRecord.read"),
        table=lazily("opslib.ops.sweep.columns:snapshot"),
    ),
)
