"""Which benchmarks a person means: two by name, or the newest and all before it."""

from pathlib import Path

from opslib.core.errors import InputError
from opslib.core.formatting import plural
from opslib.ops.bench.compare import RecordComparison, compare_records
from opslib.ops.bench.history import judge_record
from opslib.ops.bench.record import BenchRecord
from opslib.runs.catalogue import RunRow, drop_ahead, runs_of_host, scan_runs
from opslib.runs.run_record import RUN_FILE, RunRecord
from opslib.timing.between import MOST_RUNS


def compare_runs(
    baseline: str, candidate: str, root: Path, *, across_models: bool = False
) -> RecordComparison:
    """Return how two runs' bench records differ. `baseline`, `candidate`: a run's id or the end of
    it, its folder, or a bench record's file. Raises InputError: a run is unknown or has no bench
    record."""
    old, new = (BenchRecord.read(find_record(name, root)) for name in (baseline, candidate))
    return compare_records(old, new, across_models=across_models)


def find_record(name: str, root: Path) -> Path:
    """Return the bench record that a run's id, its folder or a file's path means. Raises
    InputError: nothing is called that, or the run has no bench record."""
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
    found = _bench_path(root, matches[0])
    if found is None:
        raise InputError(f"{matches[0].id}: this run has no bench record")
    return found


def check_newest(root: Path, against: str | None = None) -> tuple[str, RecordComparison]:
    """Return in words what was held against what, and how the newest finished benchmark differs
    from all comparable ones before it, or from `against`.

    Raises InputError: there is no finished benchmark below `root`, or none before it on its host.
    """
    runs = [row for row in drop_ahead(scan_runs(root)) if row.finished]
    benches = [(row, path) for row in runs if (path := _bench_path(root, row))]
    if not benches:
        raise InputError(
            f"{root}: no finished benchmark to check; make one with `pillops run bench`"
        )
    newest, path = benches[0]
    new, name = BenchRecord.read(path), path.parent.name
    if against is not None:
        old = find_record(against, root)
        what = f"{name} against {old.parent.name}"
        return what, compare_records(BenchRecord.read(old), new)
    unread: list[str] = []
    earlier: list[BenchRecord] = []
    here = {row.id for row in runs_of_host(runs, newest.machine, newest.host_name)}
    for row, older in benches[1:]:
        if row.id not in here or len(earlier) == MOST_RUNS:
            continue
        try:
            earlier.append(BenchRecord.read(older))
        except InputError:  # deleted since it was listed, damaged, or of another version
            unread.append(row.id)
    if not earlier:
        missing = f"; {', '.join(unread)} cannot be read" if unread else ""
        raise InputError(f"{newest.id}: there is no earlier benchmark on this host{missing}")
    comparison = judge_record(new, earlier)
    if unread:
        note = f"left out, as it cannot be read: {', '.join(unread)}"
        comparison = comparison.model_copy(update={"notes": (*comparison.notes, note)})
    return f"{name} against {plural(len(earlier), 'run')} before it", comparison


def _bench_path(root: Path, row: RunRow) -> Path | None:
    if row.record is None or not row.record.startswith("bench"):
        return None
    path = (root / row.record_path).parent / row.record
    return path if path.is_file() else None
