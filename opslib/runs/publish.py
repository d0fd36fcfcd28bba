"""A run of this host on the common desk: its files first, the record that lists them last."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError, OpsError
from opslib.core.files import sha256_file
from opslib.core.formatting import plural
from opslib.core.plans import Action, Plan
from opslib.runs.catalogue import CITED_FOLDER, RunRow, marker_of, scan_runs
from opslib.runs.desk import (
    Desk,
    DeskRun,
    build_desk_index,
    carry_out_runs,
    open_desk,
    read_runs,
    record_name,
    run_files,
)
from opslib.runs.run_record import RUN_FILE, RunRecord


def plan_publish(
    desk: Desk, runs: Iterable[DeskRun], names: Iterable[str] = ()
) -> tuple[Plan, list[str]]:
    """Return the steps that publish what the desk lacks, the oldest run first, and a line for each
    run that cannot be published because another host's has its place.

    Left out are citations, runs pulled from other hosts and those whose record cannot be read.

    Args:
        runs: those at the desk.
        names: ids, or their endings, of the runs that are meant; all by default.

    Raises:
        InputError: no run of this host is called so.
    """
    own = [row for row in scan_runs(desk.root) if _is_own(desk.root, row)]
    meant = select_ids([row.id for row in own], names, f"in {desk.root}")
    there = list(runs)
    known, places = {run.row.id for run in there}, {run.place: run for run in there}
    actions, refused = [], []
    for row in reversed(own):
        if row.id in known or row.id not in meant:
            continue
        before = places.get(row.record_path)
        if before is not None and before.host != desk.host:
            refused.append(f"{row.record_path}: a run of {before.host} has this place at the desk")
            continue
        verb, why = ("publish", row.word) if before is None else ("replace", f"was {before.row.id}")
        actions.append(Action(verb, row.record_path, why, partial(publish_run, desk, row)))
    return Plan(f"publish to {desk.store.url}", tuple(actions)), refused


def publish_run(desk: Desk, row: RunRow, *, root: Path | None = None, host: str = "") -> None:
    """Copy a run's files to the desk and then its record, with which the run is there.

    Args:
        root: the report folder that it lies in; this host's by default.
        host: whose it is; this host's by default.

    Raises:
        InputError: a file is missing, or is not what the record says.
        StorageError: the store refused; the run is not there, or all of it is.
    """
    root = root or desk.root
    record = root / row.record_path
    run = RunRecord.read(record)
    for entry in run.files if record.name == RUN_FILE else ():
        path = record.parent / entry.path
        if not path.is_file() or sha256_file(path) != entry.sha256:
            raise InputError(f"{path}: is not the file that its record lists")
    *files, own = run_files(row.record_path, tuple(entry.path for entry in run.files))
    gone = next((name for name in files if not (root / name).is_file()), None)
    if gone is not None:
        raise InputError(f"{root / gone}: is missing")
    # A folder with a record in it is nobody's plain notebook: see desk_adopt.
    for name in [own, *files] if record.name == RUN_FILE else [*files, own]:
        desk.store.upload(root / name, name)
    desk.store.write(record_name(host or desk.host, row.record_path), record.read_bytes())


def publish_new(config: Config, show: Callable[[str], None]) -> bool:
    """Publish what the configured desk lacks, say in one line what came of it, and return whether
    all is there; no desk, nothing said. What fails is made up for by the next call."""
    if config.desk.url is None:
        return True
    try:
        desk = open_desk(config)
        plan, refused = plan_publish(desk, read_runs(desk).values())
        skipped = carry_out_runs(plan, show)
        if plan.actions:
            build_desk_index(desk)
    except OpsError as error:
        show(f"not published, `pillops report publish` will do it: {error}")
        return False
    for line in refused:
        show(f"not published: {line}")
    if len(plan.actions) > skipped:
        show(f"published {plural(len(plan.actions) - skipped, 'run')}: {desk.page}")
    return not refused and not skipped


def select_ids(ids: Iterable[str], names: Iterable[str], where: str) -> set[str]:
    """Return the ids that are one of `names`, or end with it; all where there are none. Raises
    `InputError` where a name means no run or several."""
    known, wanted = set(ids), list(names)
    for name in wanted:
        count = sum(one.endswith(name) for one in known) if name else 0
        if count != 1:
            what = "several runs are" if count else "no run is"
            raise InputError(f"{name}: {what} called that {where}")
    return {one for one in known if not wanted or one.endswith(tuple(wanted))}


def _is_own(root: Path, row: RunRow) -> bool:
    cited = row.record_path.startswith(f"{CITED_FOLDER}/")
    pulled = marker_of(root / row.record_path).exists()
    return not cited and not pulled and row.id != row.record_path
