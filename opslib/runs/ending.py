"""How a run ended, told truthfully: papermill calls a timeout or a dead kernel complete."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from opslib.core.errors import StorageError
from opslib.core.formatting import format_duration, plural
from opslib.runs.kernel import KernelGuard
from opslib.runs.notebooks import new_markdown, to_node
from opslib.runs.run_record import RunProblem, RunStatus

ENDED_TAG = "pillops-ended"
PAPERMILL_MARKER_TAG = "papermill-error-cell-tag"
_STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO})


@dataclass(frozen=True)
class Ending:
    """How a run ended: its status and, unless it finished, why and in which code cell."""

    status: RunStatus
    problem: RunProblem | None = None


FINISHED = Ending("finished")


def is_storage_error(error: BaseException) -> bool:
    """Return whether an error means that a disk is full or cannot be written."""
    if isinstance(error, StorageError):
        return True
    return isinstance(error, OSError) and error.errno in _STORAGE_ERRORS


def started_any_cell(notebook: Any) -> bool:
    """Return whether a code cell of the notebook was started."""
    return any(_start_time(cell) for cell in notebook.cells if cell.cell_type == "code")


def describe_ending(
    error: Exception | None, notebook: Any, guard: KernelGuard, timeout_s: float | None
) -> Ending:
    """Return how a run ended, from what papermill raised, the notebook it left and the guard."""
    from jupyter_client.kernelspec import NoSuchKernel
    from nbformat import ValidationError

    cell = _last_started(notebook)
    where = f"code cell {cell}" if cell else "the kernel's start"
    if guard.reason == "timeout":
        limit = format_duration(timeout_s or 0)
        return _ended("timeout", f"Timed out after {limit}, during {where}.", cell)
    if guard.reason == "terminated":
        return _ended("terminated", f"Terminated by a signal during {where}.", cell)
    if error is None:
        return _find_left_out(notebook, cell) or FINISHED
    raised = _raised(notebook)
    if raised is not None:
        return _ended("cell_raised", f"Code cell {raised[0]} raised {raised[1]}", raised[0])
    if isinstance(error, NoSuchKernel):
        message = f"No Jupyter kernel is called {error.name!r} on this host."
        return _ended("no_kernel", message, None)
    if is_storage_error(error):
        return storage_ending(error, cell)
    if isinstance(error, ValidationError):
        return invalid_output_ending(cell)
    if not started_any_cell(notebook):
        tries = f"{guard.started} {'try' if guard.started == 1 else 'tries'}"
        why = " ".join(str(error).split())
        return _ended("kernel_died", f"The kernel did not start in {tries}: {why}.", None)
    return _ended("kernel_died", f"The kernel died during {where}.", cell)


def _find_left_out(notebook: Any, last: int | None) -> Ending | None:
    """The ending of a run that `sys.exit(0)` ended before its last cell, or None."""
    left = sum(bool(cell.source.strip()) for cell in _codes(notebook)[last or 0 :])
    if not left:
        return None
    what = f"{plural(left, 'code cell')} after it {'was' if left == 1 else 'were'} not run"
    return _ended("cell_raised", f"Code cell {last or 0} ended the notebook: {what}.", last)


def invalid_output_ending(cell: int | None) -> Ending:
    """Return the ending of a run in which a cell showed what no notebook can hold."""
    where = f"Code cell {cell}" if cell else "A cell"
    message = f"{where} raised: it showed an output that no notebook can hold; it was left out."
    return _ended("cell_raised", message, cell)


def pageless_ending(error: Exception, ending: Ending) -> Ending:
    """Return the ending of a run whose page or record could not be made, `ending` kept in it."""
    why = " ".join(str(error).split()) or "no reason given"
    message = f"The report's page could not be made: {type(error).__name__}: {why[:300]}."
    if ending.problem is None or ending.status == "finished":
        return _ended("report_failed", message, None)
    return _ended(ending.status, f"{ending.problem.message} {message}", ending.problem.cell)


def storage_ending(error: Exception, cell: int | None = None) -> Ending:
    """Return the ending of a run whose report could not be written whole."""
    why = getattr(error, "strerror", None) or str(error)
    message = f"The report could not be written whole: {why}. Outputs were left out."
    return _ended("storage", message, cell)


def repair_notebook(notebook: Any, ending: Ending, summary: dict[str, Any]) -> None:
    """Write into the notebook how its run ended: on top, in its metadata and in every cell's.

    Args:
        summary: kept as the notebook's `pillops` metadata.
    """
    markers = {ENDED_TAG, PAPERMILL_MARKER_TAG}
    notebook.cells = [
        cell for cell in notebook.cells if not markers & set(cell.metadata.get("tags", []))
    ]
    notebook.metadata["pillops"] = to_node(summary)
    failed = ending.status != "finished"
    notebook.metadata.setdefault("papermill", to_node({}))["exception"] = failed or None
    if not failed:
        return
    culprit = ending.problem.cell if ending.problem else None
    _repair_cells(notebook, culprit)
    message = ending.problem.message if ending.problem else ending.status
    marker = new_markdown(f"**This run did not finish.** {message}", tag=ENDED_TAG)
    notebook.cells.insert(0, marker)


def _repair_cells(notebook: Any, culprit: int | None) -> None:
    number, passed = 0, culprit is None
    for cell in notebook.cells:
        notes = cell.metadata.get("papermill")
        is_code = cell.cell_type == "code"
        number += is_code
        if notes is None:
            continue
        if is_code and number == culprit:
            notes["status"], notes["exception"], passed = "failed", True, True
        elif passed and not notes.get("start_time"):
            notes["status"], notes["exception"] = "pending", None


def _ended(status: RunStatus, message: str, cell: int | None) -> Ending:
    return Ending(status, RunProblem(message=message, cell=cell))


def _start_time(cell: Any) -> Any:
    return cell.metadata.get("papermill", {}).get("start_time")


def _codes(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _last_started(notebook: Any) -> int | None:
    started = [number for number, cell in enumerate(_codes(notebook), 1) if _start_time(cell)]
    return started[-1] if started else None


def _raised(notebook: Any) -> tuple[int, str] | None:
    for number, cell in enumerate(_codes(notebook), 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error" and output.ename != "SystemExit":
                value = " ".join(str(output.evalue).split())
                return number, f"{output.ename}: {value}" if value else f"{output.ename}."
            if output.output_type == "error" and str(output.evalue) not in ("0", "", "None"):
                return number, f"SystemExit: {output.evalue}"
    return None
