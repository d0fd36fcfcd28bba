"""Notebooks that plain papermill wrote to the common desk become reports like all others."""

import os
import tempfile
from pathlib import Path

from opslib.core.errors import InputError
from opslib.runs.adopt import adopt_notebook
from opslib.runs.catalogue import SIDE_SUFFIX, parse_row
from opslib.runs.desk import RECORDS, UNKNOWN_HOST, Desk, DeskRun
from opslib.runs.publish import publish_run
from opslib.runs.run_record import RUN_FILE, RunRecord


def find_plain(desk: Desk, runs: dict[str, DeskRun]) -> list[str]:
    """Return the names of the notebooks at the desk that have no record newer than themselves.
    `runs`: those at the desk. Raises `StorageError`."""
    found = desk.store.list()
    records = {run.place: name for name, run in runs.items()}
    plain = []
    for name, entry in found.items():
        hidden = any(part.startswith(".") for part in name.split("/"))
        if hidden or name.startswith(RECORDS) or not name.endswith(".ipynb"):
            continue
        folder = name.rpartition("/")[0]
        if f"{folder}/{RUN_FILE}".lstrip("/") in found:
            continue  # a run's, though it may not be there yet
        record = found.get(records.get(_side_of(name), ""))
        if record is None or record.modified_s < entry.modified_s:
            plain.append(name)
    return plain


def adopt_at_desk(
    desk: Desk, name: str, runs: dict[str, DeskRun], secrets: frozenset[str]
) -> RunRecord:
    """Give a notebook at the desk its page and its record, and return that; `secrets` are masked.

    Which host executed it, papermill does not say.

    Raises:
        InputError: it is no executed notebook.
        StorageError: the store refused.
    """
    entry = desk.store.list(name).get(name)
    if entry is None:
        raise InputError(f"{desk.store.url}/{name}: there is no such notebook")
    place = _side_of(name)
    hosts = [run.host for run in runs.values() if run.place == place]
    with tempfile.TemporaryDirectory(prefix="pillops-") as folder:
        root = Path(folder)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        desk.store.download(name, path)
        os.utime(path, (entry.modified_s, entry.modified_s))
        try:
            record = adopt_notebook(path, root, secrets)
        except InputError as error:
            reason = str(error).replace(f"{root}/", f"{desk.store.url}/")
            raise InputError(reason) from error
        row = parse_row((root / place).read_bytes(), place)
        publish_run(desk, row, root=root, host=hosts[0] if hosts else UNKNOWN_HOST)
    return record


def _side_of(name: str) -> str:
    return name.removesuffix(".ipynb") + SIDE_SUFFIX
