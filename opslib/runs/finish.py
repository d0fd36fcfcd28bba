"""From an executed notebook to a whole report: repaired, masked, rendered, published."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from typing import Any

from opslib.core.errors import ExitCode, InputError, StorageError, storage_errors
from opslib.core.files import sha256_file
from opslib.core.formatting import utc_now
from opslib.core.lineage import record_lineage
from opslib.core.records import read_json
from opslib.core.secrets import REFERENCE_PREFIX, live_secrets, resolve_reference
from opslib.core.verdicts import VERDICT_EXIT_CODES
from opslib.runs.ending import (
    Ending,
    describe_ending,
    invalid_output_ending,
    is_storage_error,
    pageless_ending,
    repair_notebook,
    storage_ending,
)
from opslib.runs.evidence import find_change, read_evidence
from opslib.runs.html import find_title, render_report
from opslib.runs.job import RESERVE_FILE, Job, publish_job
from opslib.runs.kernel import KernelGuard
from opslib.runs.notebooks import (
    cell_outputs,
    notebook_text,
    read_notebook,
    salvage_notebook,
    to_node,
)
from opslib.runs.redaction import Redactor
from opslib.runs.run_record import (
    LOG_FILE,
    RUN_FILE,
    STATUS_EXIT_CODES,
    RunProblem,
    RunRecord,
    is_key_figure,
    list_run_files,
    utc_text,
)
from opslib.telling.scraps import Scrap, collect_scraps

VERDICT_CODES = frozenset(
    {
        ExitCode.PASS,
        ExitCode.USAGE,
        ExitCode.GATE_FAILED,
        ExitCode.INCONCLUSIVE,
        ExitCode.SKIPPED,
    }
)


def finish_report(job: Job, guard: KernelGuard, error: Exception | None) -> RunRecord:
    """Write the report of a run that has ended, give its folder its name, return its record.

    Raises:
        StorageError: not even a report without outputs could be written.
    """
    notebook, lost = _read_executed(job)
    ending = Ending("finished")
    try:
        ending = describe_ending(error, notebook, guard, job.timeout_s)
        if lost and ending.status == "finished":
            ending = invalid_output_ending(lost[0])
        if ending.status != "storage":
            return _write(job, notebook, ending)
    except Exception as failure:  # the executed notebook is kept whatever the page met
        if not is_storage_error(failure):
            return write_without_page(job, notebook, pageless_ending(failure, ending))
        ending = storage_ending(failure, ending.problem.cell if ending.problem else None)
    return _write_without_outputs(job, notebook, ending)


def _write_without_outputs(job: Job, notebook: Any, ending: Ending) -> RunRecord:
    (job.aside / RESERVE_FILE).unlink(missing_ok=True)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    for path in job.aside.iterdir():
        if not path.name.startswith("."):
            path.unlink()
    try:
        return _write(job, notebook, ending)
    except OSError as failure:
        raise StorageError(f"cannot write {job.folder}: {failure.strerror}") from failure


def _write(job: Job, notebook: Any, ending: Ending) -> RunRecord:
    redactor = Redactor(_secret_values(job))
    name = f"{job.name}.ipynb"
    notebook = to_node(redactor.clean_json(to_node(notebook), name))
    log = job.aside / LOG_FILE
    if log.exists() and log.stat().st_size:
        redactor.clean_file(log)
    else:
        log.unlink(missing_ok=True)
    scraps = collect_scraps(cell_outputs(notebook))
    record_name = _copy_record(job, scraps, redactor)
    run = _make_record(job, ending, scraps, record_name)
    cleaned = redactor.clean_json(json.loads(run.to_json()), RUN_FILE)
    run = RunRecord.model_validate(cleaned)
    if redactor.found_in:
        run = _with_leak(run, redactor)
        ending = Ending("secret_leak", run.problem)
    repair_notebook(notebook, ending, _summary(run))
    _relativize(job, notebook)
    _write_notebook(job, notebook)
    names = (name, RUN_FILE, *(p.name for p in (log,) if p.exists()))
    names += (record_name,) if record_name else ()
    page = render_report(notebook, run, files=names, root=job.root_href)
    page = redactor.clean_text(page, run.report_name)
    (job.aside / run.report_name).write_text(page, encoding="utf-8", errors="replace")
    run = run.model_copy(update={"files": list_run_files(job.aside)})
    run.write(job.aside / RUN_FILE)
    publish_job(job)
    return run


def _make_record(
    job: Job, ending: Ending, scraps: dict[str, Scrap], record_name: str | None
) -> RunRecord:
    verdict: Any = str(scraps["verdict"].value) if "verdict" in scraps else None
    finding = scraps["finding"].value if "finding" in scraps else None
    ended = utc_now()
    code = STATUS_EXIT_CODES[ending.status]
    if ending.status == "finished":
        code = _outcome_code(scraps)
    defaults = {name: spec.default for name, spec in job.specs.items()}
    content = read_json(job.aside / record_name) if record_name else None
    lineage = record_lineage()
    run = RunRecord(
        id=job.id,
        notebook=job.name,
        title=find_title(job.document, job.name),
        status=ending.status,
        exit_code=int(code),
        verdict=verdict if verdict in VERDICT_EXIT_CODES else None,
        finding=str(finding) if finding else None,
        problem=ending.problem,
        started=utc_text(job.started),
        ended=utc_text(ended),
        duration_s=round((ended - job.started).total_seconds(), 3),
        parameters=json.loads(json.dumps({**defaults, **job.values})),
        changed_parameters=tuple(k for k, v in job.values.items() if defaults[k] != v),
        notebook_sha256=sha256_file(job.notebook),
        lineage=lineage,
        evidence=read_evidence(content),
        key_figures=tuple(
            scrap for scrap in scraps.values() if is_key_figure(scrap) and scrap.name != "exit_code"
        ),
        record=record_name,
    )
    return run.model_copy(update={"change": find_change(job.root, run, job.aside)})


def _outcome_code(scraps: dict[str, Scrap]) -> ExitCode:
    """The exit code that the notebook published; its verdict's own where it makes no sense."""
    code = scraps["exit_code"].value if "exit_code" in scraps else None
    if isinstance(code, int) and code in VERDICT_CODES:
        return ExitCode(code)
    verdict = scraps["verdict"].value if "verdict" in scraps else "pass"
    return VERDICT_EXIT_CODES.get(str(verdict), ExitCode.PASS)


def _with_leak(run: RunRecord, redactor: Redactor) -> RunRecord:
    places = " and ".join(redactor.found_in)
    before = f" Before that: {run.problem.message}" if run.problem else ""
    problem = RunProblem(
        message=f"A secret's value stood in {places}; it was masked here, now change the secret."
        f"{before}",
        cell=run.problem.cell if run.problem else None,
    )
    return run.model_copy(
        update={
            "status": "secret_leak",
            "exit_code": int(STATUS_EXIT_CODES["secret_leak"]),
            "problem": problem,
        }
    )


def _summary(run: RunRecord) -> dict[str, Any]:
    return {
        "run": run.id,
        "status": run.status,
        "exit_code": run.exit_code,
        "verdict": run.verdict,
        "problem": run.problem.message if run.problem else None,
    }


def _read_executed(job: Job) -> tuple[Any, tuple[int, ...]]:
    """The notebook that papermill left and the code cells that lost an invalid output, or the
    source's copy where it left none or half of one."""
    with suppress(InputError):
        return read_notebook(job.target), ()
    with suppress(InputError):
        return salvage_notebook(job.target)
    notebook = to_node(job.document)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook, ()


def write_without_page(job: Job, notebook: Any, ending: Ending) -> RunRecord:
    """Write the executed notebook and a record that says why there is no page.

    Raises:
        StorageError: they cannot be written.
    """
    redactor = Redactor(_secret_values(job))
    log = job.aside / LOG_FILE
    for path in job.aside.iterdir():
        if path.is_file() and path.name != LOG_FILE and not path.name.startswith("."):
            path.unlink()
    if log.exists():
        redactor.clean_file(log)
    notebook = to_node(redactor.clean_json(to_node(notebook), job.target.name))
    ended = utc_now()
    run = RunRecord(
        id=job.id,
        notebook=job.name,
        title=job.name,
        status=ending.status,
        exit_code=int(STATUS_EXIT_CODES[ending.status]),
        verdict=None,
        finding=None,
        problem=ending.problem,
        started=utc_text(job.started),
        ended=utc_text(ended),
        duration_s=round((ended - job.started).total_seconds(), 3),
        parameters=json.loads(json.dumps(job.values)),
        changed_parameters=tuple(job.values),
        notebook_sha256=None,
        lineage=None,
    )
    run = RunRecord.model_validate(redactor.clean_json(json.loads(run.to_json()), RUN_FILE))
    if redactor.found_in:
        run = _with_leak(run, redactor)
        ending = Ending("secret_leak", run.problem)
    with suppress(AttributeError, TypeError):  # metadata that is no mapping stays as it is
        repair_notebook(notebook, ending, _summary(run))
        _relativize(job, notebook)
    with storage_errors(f"write {job.folder}"):
        _write_notebook(job, notebook)
        run = run.model_copy(update={"files": list_run_files(job.aside)})
        run.write(job.aside / RUN_FILE)
    publish_job(job)
    return run


def _write_notebook(job: Job, notebook: Any) -> None:
    """Write the executed notebook; a lone surrogate is spelt as JSON spells it."""
    text = notebook_text(notebook)
    job.target.write_text(text, encoding="utf-8", errors="backslashreplace")


def _relativize(job: Job, notebook: Any) -> None:
    """Leave no path of this machine in papermill's metadata."""
    notes = notebook.metadata.get("papermill")
    if notes is not None:
        notes["input_path"], notes["output_path"] = job.notebook.name, job.target.name


def _copy_record(job: Job, scraps: dict[str, Scrap], redactor: Redactor) -> str | None:
    """Copy the operation's record beside the report; return its name."""
    if "record" not in scraps:
        return None
    source = job.config.resolve(str(scraps["record"].value))
    if not source.is_file() or source.suffix != ".json":
        return None
    target = job.aside / source.name
    shutil.copyfile(source, target)
    redactor.clean_file(target)
    return target.name


def _secret_values(job: Job) -> frozenset[str]:
    given = [
        resolve_reference(value, job.config.root)
        for value in job.values.values()
        if isinstance(value, str) and value.startswith(REFERENCE_PREFIX)
    ]
    return live_secrets(job.config.root) | frozenset(given)
