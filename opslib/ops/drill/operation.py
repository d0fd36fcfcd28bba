"""What the rest of the house knows of the drill."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opslib.ops.drill.command import drill
from opslib.telling.operation import Operation, Records

if TYPE_CHECKING:
    from opslib.ops.drill.record import DrillRecord


def _read(path: Path) -> DrillRecord:
    from opslib.ops.drill.record import DrillRecord

    return DrillRecord.read(path)


def _table(record: DrillRecord) -> tuple[list[str], list[list[str]]]:
    from opslib.ops.drill.story import snapshot_table

    return snapshot_table(record)


DRILL = Operation("drill", {"drill": drill}, records=Records("drill_", _read, _table))
