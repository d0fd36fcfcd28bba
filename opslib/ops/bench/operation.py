"""What the rest of the house knows of the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opslib.ops.bench.command import bench
from opslib.ops.bench.compare_command import check, diff
from opslib.telling.operation import Operation, Records

if TYPE_CHECKING:
    from opslib.ops.bench.compare import RecordComparison
    from opslib.ops.bench.record import BenchRecord


def _read(path: Path) -> BenchRecord:
    from opslib.ops.bench.record import BenchRecord

    return BenchRecord.read(path)


def _table(record: BenchRecord) -> tuple[list[str], list[list[str]]]:
    from opslib.ops.bench.story import snapshot_table

    return snapshot_table(record)


def _compare(old: BenchRecord, new: BenchRecord) -> RecordComparison:
    from opslib.ops.bench.compare import compare_records

    return compare_records(old, new)


BENCH = Operation(
    "bench",
    {"bench": bench},
    report_commands={"diff": diff, "check": check},
    records=Records("bench_", _read, _table, _compare),
)
