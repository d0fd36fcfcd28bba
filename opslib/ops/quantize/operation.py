"""What the rest of the house knows of quantizing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opslib.ops.quantize.command import promote, quantize
from opslib.telling.operation import Operation, Records

if TYPE_CHECKING:
    from opslib.ops.quantize.record import QuantizeRecord


def _read(path: Path) -> QuantizeRecord:
    from opslib.ops.quantize.record import QuantizeRecord

    return QuantizeRecord.read(path)


def _table(record: QuantizeRecord) -> tuple[list[str], list[list[str]]]:
    from opslib.ops.quantize.story import snapshot_table

    return snapshot_table(record)


QUANTIZE = Operation(
    "quantize",
    {"quantize": quantize, "promote": promote},
    records=Records("quantize_", _read, _table),
)
