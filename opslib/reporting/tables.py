"""The kinds of records that documents show as tables, and who tells each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opslib.inference.preprocess import import_object


@dataclass(frozen=True)
class Table:
    """A kind of table: how its records' files begin, which record they are, and who tells it.

    `story` names a module with `snapshot_table(record) -> (columns, rows of text)`.
    """

    record_prefix: str
    record_class: str
    story: str

    def read(self, path: Path) -> Any:
        """Return the record at `path`."""
        return import_object(self.record_class, None, key="snapshot").read(path)

    def tell(self, record: Any) -> tuple[list[str], list[list[str]]]:
        """Return the columns and the rows, as text, that show `record`."""
        found: tuple[list[str], list[list[str]]] = import_object(
            f"{self.story}:snapshot_table", None, key="snapshot"
        )(record)
        return found


TABLES = {
    "bench": Table(
        "bench_", "opslib.measure.bench.record:BenchRecord", "opslib.reporting.bench_story"
    ),
    "sweep": Table(
        "ort_bench_", "opslib.measure.sweep.record:SweepRecord", "opslib.reporting.sweep_story"
    ),
    "quantize": Table(
        "quantize_",
        "opslib.measure.quantize.record:QuantizeRecord",
        "opslib.reporting.quantize_story",
    ),
    "drill": Table("drill_", "opslib.drill.record:DrillRecord", "opslib.reporting.drill_story"),
}


def find_table(record_name: str) -> Table | None:
    """Return the table whose records' files begin as `record_name` does, or None."""
    return next((t for t in TABLES.values() if record_name.startswith(t.record_prefix)), None)
