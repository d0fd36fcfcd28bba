"""What the rest of the house knows of the benchmark."""

from __future__ import annotations

from opslib.ops.bench.command import bench, check, diff
from opslib.telling.operation import Operation, Records, lazily

BENCH = Operation(
    "bench",
    {"bench": bench},
    report_commands={"diff": diff, "check": check},
    records=Records(
        "bench_",
        read=lazily("opslib.ops.bench.record:BenchRecord.read"),
        table=lazily("opslib.ops.bench.columns:snapshot"),
        compare=lazily("opslib.ops.bench.compare:compare_records"),
    ),
)
