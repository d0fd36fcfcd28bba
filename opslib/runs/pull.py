"""The runs of other hosts, from the common desk into this host's report folder, each whole."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from opslib.core.errors import InputError
from opslib.core.files import folder_atomic, hidden_folder, sha256_file, write_bytes_atomic
from opslib.core.ownership import make_folder
from opslib.core.plans import Action, Plan
from opslib.runs.catalogue import marker_of, scan_runs
from opslib.runs.desk import Desk, DeskRun, run_files
from opslib.runs.publish import select_ids
from opslib.runs.run_record import RUN_FILE, RunRecord


def plan_pull(
    desk: Desk, runs: Iterable[DeskRun], names: Iterable[str] = ()
) -> tuple[Plan, list[str]]:
    """Return the steps that bring the runs of other hosts here, and a line for each that cannot
    come because something else has its place. Nothing that is here is ever replaced.

    Args:
        runs: those at the desk.
        names: ids, or their endings, of the runs that are meant, whose they may be; by default all
            of other hosts.

    Raises:
        InputError: no run at the desk is called so.
    """
    wanted = list(names)
    there = [run for run in runs if run.is_whole and (wanted or run.host != desk.host)]
    by_id = {run.row.id: run for run in there}
    meant = select_ids(by_id, wanted, f"at {desk.store.url}")
    known = {row.id for row in scan_runs(desk.root)}
    actions, refused = [], []
    for run in sorted(by_id.values(), key=lambda run: run.row.started):
        record = desk.root / run.place
        if run.row.id in known or run.row.id not in meant:
            continue
        taken = record.parent if record.name == RUN_FILE else record
        if taken.exists():
            refused.append(f"{taken}: is here already, and is not the run {run.row.id}")
            continue
        why = f"of {run.host}: {run.row.word}"
        actions.append(Action("pull", run.place, why, partial(pull_run, desk, run)))
    return Plan(f"pull from {desk.store.url}", tuple(actions)), refused


def pull_run(desk: Desk, run: DeskRun) -> None:
    """Bring a run here; it appears whole, every file as its record lists it.

    Raises:
        InputError: its record cannot be read, or a file is not what it lists.
        StorageError: the store or the disk refused; nothing of it is here.
    """
    data = desk.store.read(run.record_name)
    try:
        record = RunRecord.model_validate_json(data)
    except ValidationError as error:
        raise InputError(f"{run.record_name}: is no record of a run") from error
    *files, _own = run_files(run.place, tuple(entry.path for entry in record.files))
    target = desk.root / run.place
    if target.name == RUN_FILE:
        digests = {entry.path: entry.sha256 for entry in record.files}
        with folder_atomic(target.parent) as aside:
            for name in files:
                _fetch(desk, name, aside, digests)
            (aside / RUN_FILE).write_bytes(data)
            marker_of(aside / RUN_FILE).write_text(run.host, encoding="utf-8")
        return
    digests = {Path(files[-1]).name: record.notebook_sha256 or ""}
    make_folder(target.parent)
    with hidden_folder(target) as aside:
        for name in files:
            _fetch(desk, name, aside, digests)
        write_bytes_atomic(marker_of(target), run.host.encode())
        for name in files:
            (aside / Path(name).name).replace(desk.root / name)
    write_bytes_atomic(target, data)


def _fetch(desk: Desk, name: str, folder: Path, digests: dict[str, str]) -> None:
    path = folder / Path(name).name
    desk.store.download(name, path)
    wanted = digests.get(path.name)
    if wanted and sha256_file(path) != wanted:
        raise InputError(f"{name}: is not the file that its record lists")
