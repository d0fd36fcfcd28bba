"""The operations: one folder each, and the registry by which all others find them."""

from pathlib import PurePath

from opslib.ops.bench.command import BENCH
from opslib.ops.checklist.operation import CHECKLIST
from opslib.ops.drill.command import DRILL
from opslib.ops.fleet.command import FLEET
from opslib.ops.quantize.command import QUANTIZE
from opslib.ops.release.operation import RELEASE
from opslib.ops.served_sweep.command import SERVED_SWEEP
from opslib.ops.sweep.command import SWEEP
from opslib.ops.trends.command import TRENDS
from opslib.telling.operation import Operation, Records

OPERATIONS: dict[str, Operation] = {}


def register(*operations: Operation) -> None:
    """Make operations known: their commands, records, comparisons and tables."""
    OPERATIONS.update({one.name: one for one in operations})


def find_records(file_name: str) -> Records | None:
    """Return whose records' files begin as `file_name` does, or None."""
    known = (one.records for one in OPERATIONS.values() if one.records is not None)
    return next((one for one in known if PurePath(file_name).name.startswith(one.files)), None)


register(BENCH, SWEEP, SERVED_SWEEP, QUANTIZE, RELEASE, DRILL, CHECKLIST, TRENDS, FLEET)
