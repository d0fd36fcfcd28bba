"""Run a notebook and leave a report that may be believed, however the run ends."""

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from opslib.core.config import Config, check_experiment, load_config
from opslib.core.errors import InputError, ParameterError
from opslib.core.files import ensure_writable
from opslib.runs.index import build_index
from opslib.runs.job import Job, Progress, open_job
from opslib.runs.notebooks import code_cells, find_notebook, read_notebook
from opslib.runs.parameters import check_parameters, read_parameters
from opslib.runs.run_record import LOG_FILE, RunRecord
from opslib.timing.lock import hold_timing_lock

START_ATTEMPTS = 3
START_TIMEOUT_S = 60


def run_notebook(
    notebook: Path | str,
    *,
    parameters: Mapping[str, Any] | None = None,
    config: Config | None = None,
    timeout_s: float | None = None,
    report_root: Path | None = None,
    out: Path | None = None,
    kernel: str | None = None,
    wait_s: float = 0.0,
    progress: Progress | None = None,
) -> RunRecord:
    """Execute a notebook and return how it went; the report lies in a dated folder of its own.

    The folder `<report_root>/<YYYY-MM-DD>/<HHMMSS>-<notebook>-<short id>/` (UTC) appears whole,
    with the executed notebook, its HTML page, `run.json` and what the kernel wrote past Python
    (`kernel.log`). Cells run in the configuration's folder, on this interpreter, under the
    caller's configuration. Runs of one host wait for each other unless the notebook's metadata
    says `"pillops": {"timed": false}`.

    Args:
        notebook: a path, or a name such as `01_bench` or `bench` from the `notebooks` folder.
        parameters: values by name; text is converted as the notebook declares.
        timeout_s: seconds for the whole run; none by default.
        report_root: where reports lie; the configuration's `paths.report_dir` by default.
        out: the report's folder itself, in place of the dated one.
        kernel: another installed Jupyter kernel than this interpreter.
        wait_s: seconds to wait for another timed run of this host.
        progress: is told each step as one line.

    Raises:
        ParameterError, InputError, ConfigError, BusyError, StorageError: nothing was run. Whatever
            happens later is told by the record and by its exit code.
    """
    config = config or load_config()
    path = find_notebook(notebook, config)
    document = read_notebook(path)
    timed = _read_timed(document, path)
    _check_seconds("timeout", timeout_s)
    _check_seconds("wait", wait_s)
    specs = read_parameters(document)
    values = check_parameters(parameters or {}, specs, config.root)
    root = (report_root or config.report_dir).absolute()
    if root.is_relative_to(config.exp_dir):
        check_experiment(config)
    ensure_writable(root)
    purpose = f"a timed run of {path.stem}"
    with hold_timing_lock(purpose, wait_s=wait_s) if timed else nullcontext():
        job = Job(
            notebook=path,
            document=document,
            specs=specs,
            values=values,
            config=config,
            root=root,
            out=out,
            kernel=kernel,
            timeout_s=timeout_s,
            progress=progress or (lambda _text: None),
        )
        with open_job(job):
            record = _carry_out(job)
    if job.folder.is_relative_to(root):
        try:
            build_index(root, config.source)
        except Exception as error:  # the report is safe; the page is made anew by the next run
            job.progress(f"the index could not be updated: {error}")
    return record


def _carry_out(job: Job) -> RunRecord:
    from opslib.runs.finish import finish_report
    from opslib.runs.kernel import KernelGuard, kernel_environment

    guard = KernelGuard(job.aside / LOG_FILE, kernel_environment(job.config.source))
    with guard.watch(job.timeout_s):
        error = _execute(job, guard)
        guard.kill()
        job.progress("writing the report")
        return finish_report(job, guard, error)


def _execute(job: Job, guard: Any) -> Exception | None:
    """Execute the notebook; return what papermill raised. A kernel that did not start is tried
    again."""
    for attempt in range(START_ATTEMPTS, 0, -1):
        try:
            _execute_once(job, guard)
            return None
        except Exception as error:  # whatever it is, the report tells it
            if attempt == 1 or not _may_try_again(job, guard, error):
                return error
            job.progress(f"the kernel did not start, trying again: {error}")
    return None


def _may_try_again(job: Job, guard: Any, error: Exception) -> bool:
    from jupyter_client.kernelspec import NoSuchKernel

    from opslib.runs.ending import is_storage_error, last_started

    if guard.reason is not None or isinstance(error, NoSuchKernel) or is_storage_error(error):
        return False
    try:
        return last_started(read_notebook(job.target)) is None
    except InputError:
        return not job.target.exists()


def _execute_once(job: Job, guard: Any) -> None:
    import papermill

    from opslib.runs.kernel import KERNEL_ARGUMENTS, OWN_KERNEL

    # Papermill cannot read every annotation and then warns; the values are checked already.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    # What watched a kernel that was stopped half-way ends with a traceback of its own.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    name = job.kernel or OWN_KERNEL
    source, target = (  # papermill formats `{name}` in paths with the parameters
        str(path).replace("{", "{{").replace("}", "}}") for path in (job.notebook, job.target)
    )
    papermill.execute_notebook(
        source,
        target,
        parameters=job.values or None,
        kernel_name=name,
        language="python",
        progress_bar=False,
        start_timeout=START_TIMEOUT_S,
        cwd=str(job.config.root),
        kernel_manager_class=guard.manager_class(),
        extra_arguments=KERNEL_ARGUMENTS if name == OWN_KERNEL else [],
        on_cell_start=_tell_steps(job),
    )


def _tell_steps(job: Job) -> Callable[..., None]:
    headings: dict[str, str] = {}
    heading = ""
    for cell in job.document.cells:
        if cell.cell_type == "markdown":
            lines = [line for line in cell.source.splitlines() if line.startswith("#")]
            heading = lines[-1].lstrip("# ") if lines else heading
        headings[cell.get("id", "")] = heading
    total = len(code_cells(job.document)) + bool(job.values)
    numbers = itertools.count(1)

    def tell(cell: Any, **_position: Any) -> None:
        if cell.cell_type == "code":
            where = headings.get(cell.get("id", ""), "given parameters")
            job.progress(f"cell {next(numbers)} of {total}{': ' + where if where else ''}")

    return tell


def _read_timed(document: Any, path: Path) -> bool:
    """Whether a notebook measures; one that does not says so in its metadata."""
    for name in ("pillops", "papermill"):
        if not isinstance(document.metadata.get(name, {}), dict):
            raise InputError(f"{path}: its metadata {name!r} is no mapping")
    timed = document.metadata.get("pillops", {}).get("timed", True)
    if not isinstance(timed, bool):
        raise InputError(f"{path}: its metadata pillops.timed is {timed!r}; expected true or false")
    return timed


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None and not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise ParameterError(f"--{name}: got {seconds}; expected seconds, a finite number")
