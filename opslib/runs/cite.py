"""Runs that a document cites: copied small, with no link that a fresh clone lacks."""

import json
import re
import shutil
from pathlib import Path

from opslib.core.errors import InputError, storage_errors
from opslib.core.files import folder_atomic
from opslib.core.formatting import format_bytes
from opslib.ops import find_records
from opslib.runs.catalogue import CITED_FOLDER
from opslib.runs.run_record import RUN_FILE, RunRecord, list_run_files

MAX_CITED_BYTES = 500 * 1024
_FILES = re.compile(r"<!--files-->.*?<!--/files-->", flags=re.DOTALL)
_NAME = re.compile(r"<!--name-->.*?<!--/name-->", flags=re.DOTALL)
_SINCE = re.compile(r"<!--since-->.*?<!--/since-->", flags=re.DOTALL)


def cite_run(source: Path, root: Path) -> None:
    """Copy a run's page and records into `<root>/cited/<run id>/`.

    A record over half the limit is slimmed: medians in place of raw calls. What the host is called
    stays behind: who reads a document needs to know what it is.

    Raises:
        InputError: the page or the record is over 500 KiB, or the run has no page.
    """
    run = RunRecord.read(source / RUN_FILE)
    target = root / CITED_FOLDER / run.id
    with folder_atomic(target) as folder:
        page = (source / run.report_name).read_text(encoding="utf-8")
        page = _NAME.sub("", _FILES.sub("", page))
        page = _SINCE.sub("Since the last comparable run", page)
        (folder / run.report_name).write_text(page, encoding="utf-8")
        if run.record:
            _copy_record(source / run.record, folder / run.record)
        if run.lineage and run.lineage.host.name:
            run = _without_name(run, folder)
        for path in folder.iterdir():
            if path.stat().st_size > MAX_CITED_BYTES:
                size, limit = map(format_bytes, (path.stat().st_size, MAX_CITED_BYTES))
                raise InputError(f"{run.id}: {path.name} has {size}, at most {limit} can be cited")
        run.model_copy(update={"files": list_run_files(folder)}).write(folder / RUN_FILE)
        if target.exists():  # damaged; what takes its place is whole by now
            shutil.rmtree(target)


def is_cited(root: Path, run_id: str) -> bool:
    """Return whether a run is kept in the cited folder, with all its files."""
    folder = root / CITED_FOLDER / run_id
    try:
        run = RunRecord.read(folder / RUN_FILE)
    except InputError:
        return False
    return list_run_files(folder) == run.files


def remove_citation(root: Path, run_id: str) -> None:
    """Remove a run from the cited folder."""
    with storage_errors(f"remove {run_id}"):
        shutil.rmtree(root / CITED_FOLDER / run_id)


def _without_name(run: RunRecord, folder: Path) -> RunRecord:
    """Take what the host is called out of the copied record, and return the run without it."""
    if run.lineage is None:
        return run
    name = f'"name": {json.dumps(run.lineage.host.name, ensure_ascii=False)}'
    if run.record:
        copy = folder / run.record
        text = copy.read_text(encoding="utf-8")
        copy.write_text(text.replace(name, '"name": null'), encoding="utf-8")
    host = run.lineage.host.model_copy(update={"name": None})
    return run.model_copy(update={"lineage": run.lineage.model_copy(update={"host": host})})


def _copy_record(source: Path, target: Path) -> None:
    kept = find_records(source.name)
    if kept is None or source.stat().st_size <= MAX_CITED_BYTES // 2:
        shutil.copyfile(source, target)
    else:
        kept.read(source).slim().write(target)
