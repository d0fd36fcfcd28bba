"""Notebooks that plain papermill wrote into the report folder become reports like all others."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opslib.core.errors import InputError, OpsError
from opslib.core.files import sha256_file, write_text_atomic
from opslib.core.formatting import shorten
from opslib.core.verdicts import VERDICT_EXIT_CODES
from opslib.runs.catalogue import SIDE_SUFFIX, RunRow, broken_row, visible_files
from opslib.runs.ending import FINISHED, Ending, find_raised
from opslib.runs.html import find_title, render_report
from opslib.runs.notebooks import cell_outputs, code_cells, notebook_text, read_notebook, to_node
from opslib.runs.redaction import Redactor
from opslib.runs.run_record import (
    RUN_FILE,
    STATUS_EXIT_CODES,
    RunRecord,
    read_headline,
    utc_text,
)
from opslib.telling.scraps import collect_scraps


def adopt_notebooks(root: Path, secrets: frozenset[str]) -> list[RunRow]:
    """Adopt every plain notebook below `root` that has no record newer than itself, and return
    rows for those that are broken; `secrets` are masked."""
    files = {entry.path: entry for entry in visible_files(root)}
    broken = []
    for name, entry in files.items():
        if not name.endswith(".ipynb"):
            continue
        path = Path(name)
        if str(path.with_name(RUN_FILE)) in files:
            continue
        side = files.get(name.removesuffix(".ipynb") + SIDE_SUFFIX)
        if side is not None and side.stat().st_mtime_ns >= entry.stat().st_mtime_ns:
            continue
        try:
            adopt_notebook(path, root, secrets)
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ")
            broken.append(broken_row(path.relative_to(root).as_posix(), f"Broken: {reason}."))
    return broken


def adopt_notebook(path: Path, root: Path, secrets: frozenset[str]) -> RunRecord:
    """Write the HTML page and the record of an executed notebook beside it; return the record.
    `secrets` are masked in all three.

    What papermill does not say is looked for: a code cell that was never started means that the
    run was cut short, although the notebook calls every cell complete.

    Raises:
        InputError: it is no notebook, was never executed, or says what no run can have done.
    """
    try:
        return _adopt(path, root, secrets)
    except (OpsError, OSError):
        raise
    except Exception as error:  # it comes from anywhere and may hold anything
        why = shorten(str(error)) or type(error).__name__
        raise InputError(f"{path}: cannot be read as an executed notebook: {why}") from error


def _adopt(path: Path, root: Path, secrets: frozenset[str]) -> RunRecord:
    notebook = read_notebook(path)
    redactor = Redactor(secrets)
    notebook = to_node(redactor.clean_json(to_node(notebook), path.name))
    if redactor.found_in:
        write_text_atomic(path, notebook_text(notebook))
    run = _describe(path, notebook, redactor)
    depth = len(path.relative_to(root).parts) - 1
    page = render_report(notebook, run, files=(path.name,), root="../" * depth)
    write_text_atomic(path.with_name(run.report_name), redactor.clean_text(page, path.name))
    run.write(path.with_name(f"{path.stem}{SIDE_SUFFIX}"))
    return run


def _describe(path: Path, notebook: Any, redactor: Redactor) -> RunRecord:
    notes = notebook.metadata.get("papermill") or {}
    codes = code_cells(notebook)
    if not any(cell.get("execution_count") for cell in codes) and not notes.get("start_time"):
        raise InputError(f"{path}: was never executed")
    scraps = collect_scraps(cell_outputs(notebook))
    headline = read_headline(scraps)
    if "verdict" in scraps and isinstance(scraps["verdict"].value, list | dict):
        raise ValueError("its verdict is no word")
    ending = _find_ending(notebook, codes, notes)
    if redactor.found_in:
        ending = Ending("secret_leak", f"A secret's value stood in {path.name}; it was masked.")
    code = STATUS_EXIT_CODES[ending.status]
    if ending.status == "finished" and headline["verdict"]:
        code = VERDICT_EXIT_CODES[headline["verdict"]]
    modified = datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)
    started = _time_text(notes.get("start_time")) or utc_text(modified)
    digest = sha256_file(path)
    given = dict(notes.get("parameters") or {})
    return RunRecord(
        **headline,
        id=f"{path.stem}-{digest[:12]}",
        notebook=path.stem,
        title=find_title(notebook, path.stem),
        status=ending.status,
        exit_code=int(code),
        problem=ending.problem,
        started=started,
        ended=_time_text(notes.get("end_time")) or started,
        duration_s=_duration_s(notes),
        parameters=given,
        changed_parameters=tuple(given),
        notebook_sha256=digest,
    )


def _find_ending(notebook: Any, codes: list[Any], notes: dict[str, Any]) -> Ending:
    known = notebook.metadata.get("pillops") or {}
    if known.get("status") in STATUS_EXIT_CODES:
        return Ending(known["status"], known.get("problem") or "")
    raised = find_raised(notebook)
    if raised is not None:
        return raised
    started = [
        number
        for number, cell in enumerate(codes, 1)
        if cell.get("execution_count")
        or (cell.metadata.get("papermill") or {}).get("start_time")
        or not cell.source.strip()
    ]
    if notes and (len(started) < len(codes) or not notes.get("end_time")):
        last = started[-1] if started else None
        where = f"code cell {last}" if last else "the kernel's start"
        return Ending(
            "terminated", f"The run was cut short at {where}; nothing recorded why.", last
        )
    return FINISHED


def _time_text(value: Any) -> str | None:
    try:
        return utc_text(datetime.fromisoformat(value).astimezone(UTC))
    except (TypeError, ValueError):
        return None


def _duration_s(notes: dict[str, Any]) -> float:
    seconds = float(notes.get("duration") or 0.0)
    if not math.isfinite(seconds):
        raise ValueError(f"its duration is {seconds}")
    return seconds
