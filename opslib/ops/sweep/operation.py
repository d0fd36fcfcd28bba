"""What the rest of the house knows of the sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opslib.ops.sweep.apply_command import apply
from opslib.ops.sweep.command import sweep
from opslib.telling.operation import Operation, Records

if TYPE_CHECKING:
    from opslib.ops.sweep.record import SweepRecord


def _read(path: Path) -> SweepRecord:
    from opslib.ops.sweep.record import SweepRecord

    return SweepRecord.read(path)


def _table(record: SweepRecord) -> tuple[list[str], list[list[str]]]:
    from opslib.ops.sweep.story import snapshot_table

    return snapshot_table(record)


SWEEP = Operation(
    "sweep", {"sweep": sweep, "apply": apply}, records=Records("ort_bench_", _read, _table)
)
