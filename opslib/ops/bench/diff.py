"""Two runs compared, and the newest run held against the last one."""

from __future__ import annotations

from pathlib import Path

from opslib.core.errors import InputError
from opslib.ops.bench.compare import RecordComparison, compare_records
from opslib.ops.bench.record import BenchRecord
from opslib.runs.catalogue import RunRow, drop_ahead, scan_runs
from opslib.runs.run_record import RUN_FILE, RunRecord


def compare_runs(
    baseline: str, candidate: str, root: Path, *, across_models: bool = False
) -> RecordComparison:
    """Return how two runs' bench records differ.

    Args:
        baseline, candidate: a run's id or the end of it, its folder, or a bench record's file.

    Raises:
        InputError: a run is unknown or has no bench record.
    """
    old, new = (BenchRecord.read(find_record(name, root)) for name in (baseline, candidate))
    return compare_records(old, new, across_models=across_models)


def find_check_pair(root: Path, against: str | None = None) -> tuple[Path, Path]:
    """Return the bench records of the last comparable run (or `against`) and of the newest run.

    Raises:
        InputError: there is no finished run with a bench record, or none to hold it against.
    """
    runs = drop_ahead(scan_runs(root))
    rows = [row for row in runs if row.finished and _bench_path(root, row)]
    if not rows:
        raise InputError(
            f"{root}: no finished benchmark to check; make one with `pillops run bench`"
        )
    newest = rows[0]
    if against is not None:
        return find_record(against, root), _found(root, newest)
    for row in rows[1:]:
        if (row.notebook, row.host_fingerprint) == (newest.notebook, newest.host_fingerprint):
            return _found(root, row), _found(root, newest)
    raise InputError(f"{newest.id}: there is no earlier run of {newest.notebook} on this host")


def find_record(name: str, root: Path) -> Path:
    """Return the bench record that a run's id, its folder or a file's path means.

    Raises:
        InputError: nothing is called that, or the run has no bench record.
    """
    path = Path(name)
    if path.is_file() and path.name != RUN_FILE and path.suffix == ".json":
        return path
    folder = path if path.is_dir() else path.parent
    if (folder / RUN_FILE).is_file() and path.exists():
        run = RunRecord.read(folder / RUN_FILE)
        if run.record:
            return folder / run.record
        raise InputError(f"{name}: this run has no bench record")
    matches = [row for row in scan_runs(root) if row.id == name or row.id.endswith(name)]
    if len(matches) != 1:
        what = "several runs are" if matches else "no run is"
        raise InputError(f"{name}: {what} called that in {root}; give an id, a folder or a record")
    return _found(root, matches[0])


def _found(root: Path, row: RunRow) -> Path:
    path = _bench_path(root, row)
    if path is None:
        raise InputError(f"{row.id}: this run has no bench record")
    return path


def _bench_path(root: Path, row: RunRow) -> Path | None:
    if row.record is None or not row.record.startswith("bench"):
        return None
    path = (root / row.record_path).parent / row.record
    return path if path.is_file() else None
