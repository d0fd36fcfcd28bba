"""How a run ended, told truthfully: papermill calls a timeout or a dead kernel complete."""

import errno
from dataclasses import dataclass
from typing import Any

from opslib.core.errors import StorageError
from opslib.core.formatting import format_duration, shorten
from opslib.core.language import tr, tr_many
from opslib.runs.kernel import KernelGuard
from opslib.runs.notebooks import ENDED_TAG, code_cells, is_marker, new_markdown, to_node
from opslib.runs.run_record import RunProblem, RunRecord, RunStatus

_STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO})


@dataclass(frozen=True)
class Ending:
    """How a run ended: its status and, unless it finished, why and in which code cell."""

    status: RunStatus
    message: str = ""
    cell: int | None = None

    @property
    def problem(self) -> RunProblem | None:
        """What a record says of it."""
        return RunProblem(message=self.message, cell=self.cell) if self.message else None


FINISHED = Ending("finished")


def is_storage_error(error: BaseException) -> bool:
    """Return whether an error means that a disk is full or cannot be written."""
    if isinstance(error, StorageError):
        return True
    return isinstance(error, OSError) and error.errno in _STORAGE_ERRORS


def last_started(notebook: Any) -> int | None:
    """Return the number of the last code cell that was started, or None."""
    cells = enumerate(code_cells(notebook), 1)
    return max((number for number, cell in cells if _start_time(cell)), default=None)


def describe_ending(
    error: Exception | None, notebook: Any, guard: KernelGuard, timeout_s: float | None
) -> Ending:
    """Return how a run ended, from what papermill raised, the notebook it left and the guard."""
    from jupyter_client.kernelspec import NoSuchKernel
    from nbformat import ValidationError

    cell = last_started(notebook)
    where = tr("code cell {number}", number=cell) if cell else tr("the kernel's start")
    if guard.reason == "timeout":
        limit = format_duration(timeout_s or 0)
        return Ending(
            "timeout",
            tr("Timed out after {limit}, during {where}.", limit=limit, where=where),
            cell,
        )
    if guard.reason == "terminated":
        return Ending("terminated", tr("Terminated by a signal during {where}.", where=where), cell)
    if error is None:
        return _find_left_out(notebook, cell) or FINISHED
    raised = find_raised(notebook)
    if raised is not None:
        return raised
    if isinstance(error, NoSuchKernel):
        return Ending(
            "no_kernel", tr("No Jupyter kernel is called {name!r} on this host.", name=error.name)
        )
    if is_storage_error(error):
        return storage_ending(error, cell)
    if isinstance(error, ValidationError):
        return invalid_output_ending(cell)
    if cell is None:
        told = tr_many(
            "The kernel did not start in {count} try: {why}.",
            "The kernel did not start in {count} tries: {why}.",
            guard.started,
            why=" ".join(str(error).split()),
        )
        return Ending("kernel_died", told)
    return Ending("kernel_died", tr("The kernel died during {where}.", where=where), cell)


def _find_left_out(notebook: Any, last: int | None) -> Ending | None:
    """The ending of a run that `sys.exit(0)` ended before its last cell, or None."""
    left = sum(bool(cell.source.strip()) for cell in code_cells(notebook)[last or 0 :])
    if not left:
        return None
    told = tr_many(
        "Code cell {cell} ended the notebook: {count:,} code cell after it was not run.",
        "Code cell {cell} ended the notebook: {count:,} code cells after it were not run.",
        left,
        cell=last or 0,
    )
    return Ending("cell_raised", told, last)


def invalid_output_ending(cell: int | None) -> Ending:
    """Return the ending of a run in which a cell showed what no notebook can hold."""
    where = tr("Code cell {number}", number=cell) if cell else tr("A cell")
    message = tr(
        "{cell} raised: it showed an output that no notebook can hold; it was left out.", cell=where
    )
    return Ending("cell_raised", message, cell)


def pageless_ending(error: Exception, ending: Ending) -> Ending:
    """Return the ending of a run whose page or record could not be made, `ending` kept in it."""
    why = shorten(str(error)) or tr("no reason given")
    message = tr(
        "The report's page could not be made: {error}: {why}.", error=type(error).__name__, why=why
    )
    if ending.status == "finished":
        return Ending("report_failed", message)
    return Ending(ending.status, f"{ending.message} {message}", ending.cell)


def storage_ending(error: Exception, cell: int | None = None) -> Ending:
    """Return the ending of a run whose report could not be written whole."""
    why = getattr(error, "strerror", None) or str(error)
    message = tr("The report could not be written whole: {why}. Outputs were left out.", why=why)
    return Ending("storage", message, cell)


def repair_notebook(notebook: Any, run: RunRecord) -> None:
    """Write into the notebook how its run ended: on top, in its metadata and in every cell's."""
    notebook.cells = [cell for cell in notebook.cells if not is_marker(cell)]
    message = run.problem.message if run.problem else None
    summary = {"run": run.id, **run.model_dump(include={"status", "exit_code", "verdict"})}
    summary["problem"] = message
    notebook.metadata["pillops"] = to_node(summary)
    failed = run.status != "finished"
    notebook.metadata.setdefault("papermill", to_node({}))["exception"] = failed or None
    if failed:
        _repair_cells(notebook, run.problem.cell if run.problem else None)
        head = tr("This run did not finish.")
        text = f"**{head}** {message or run.status}"
        notebook.cells.insert(0, new_markdown(text, tag=ENDED_TAG))


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


def _start_time(cell: Any) -> Any:
    return cell.metadata.get("papermill", {}).get("start_time")


def find_raised(notebook: Any) -> Ending | None:
    """Return the ending of a run in which a code cell raised, or None; `sys.exit(0)` does not."""
    for number, cell in enumerate(code_cells(notebook), 1):
        for output in cell.get("outputs", []):
            if output.output_type != "error":
                continue
            value = " ".join(str(output.evalue).split())
            if output.ename == "SystemExit" and value in ("0", "", "None"):
                continue
            what = f"{output.ename}: {value}" if value else f"{output.ename}."
            return Ending(
                "cell_raised",
                tr("Code cell {number} raised {what}", number=number, what=what),
                number,
            )
    return None
