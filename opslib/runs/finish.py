"""From an executed notebook to a whole report: repaired, masked, rendered, published."""

import json
import shutil
from contextlib import suppress
from typing import Any

from opslib.core.errors import ExitCode, InputError, storage_errors
from opslib.core.files import sha256_file
from opslib.core.formatting import utc_now
from opslib.core.language import name_some, tr
from opslib.core.lineage import Lineage, record_lineage
from opslib.core.records import read_json
from opslib.core.secrets import REFERENCE_PREFIX, live_secrets, resolve_reference
from opslib.core.served import note_served
from opslib.core.verdicts import VERDICT_EXIT_CODES
from opslib.runs.ending import (
    FINISHED,
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
    code_cells,
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
    list_run_files,
    read_headline,
    utc_text,
)
from opslib.telling.scraps import Scrap, collect_scraps

VERDICT_CODES = {*VERDICT_EXIT_CODES.values(), ExitCode.USAGE, ExitCode.SKIPPED}


def finish_report(job: Job, guard: KernelGuard, error: Exception | None) -> RunRecord:
    """Write the report of a run that has ended, give its folder its name, return its record.

    Raises:
        StorageError: not even a report without outputs could be written, or it got no name.
    """
    run = _write_whatever_comes(job, guard, error)
    publish_job(job)
    return run


def _write_whatever_comes(job: Job, guard: KernelGuard, error: Exception | None) -> RunRecord:
    notebook, lost = _read_executed(job)
    ending = FINISHED
    try:
        ending = describe_ending(error, notebook, guard, job.timeout_s)
        if lost and ending.status == "finished":
            ending = invalid_output_ending(lost[0])
        if ending.status != "storage":
            return _write(job, notebook, ending)
    except Exception as failure:  # the executed notebook is kept whatever the page met
        if not is_storage_error(failure):
            return _write_without_page(job, notebook, pageless_ending(failure, ending))
        ending = storage_ending(failure, ending.cell)
    return _write_without_outputs(job, notebook, ending)


def _write_without_outputs(job: Job, notebook: Any, ending: Ending) -> RunRecord:
    (job.aside / RESERVE_FILE).unlink(missing_ok=True)
    for cell in code_cells(notebook):
        cell.outputs = []
    for path in job.aside.iterdir():
        if not path.name.startswith("."):
            path.unlink()
    with storage_errors(f"write {job.folder}"):
        return _write(job, notebook, ending)


def _write_without_page(job: Job, notebook: Any, ending: Ending) -> RunRecord:
    """Write the executed notebook and a record that says why there is no page."""
    for path in job.aside.iterdir():
        if path.is_file() and path.name != LOG_FILE and not path.name.startswith("."):
            path.unlink()
    with storage_errors(f"write {job.folder}"):
        return _write(job, notebook, ending, with_page=False)


def _write(job: Job, notebook: Any, ending: Ending, *, with_page: bool = True) -> RunRecord:
    redactor = Redactor(_secret_values(job))
    notebook = to_node(redactor.clean_json(to_node(notebook), job.target.name))
    log = job.aside / LOG_FILE
    if log.exists() and log.stat().st_size:
        redactor.clean_file(log)
    else:
        log.unlink(missing_ok=True)
    ended = utc_now()
    facts: dict[str, Any] = {
        "id": job.id,
        "notebook": job.name,
        "title": job.name,
        "status": ending.status,
        "exit_code": STATUS_EXIT_CODES[ending.status],
        "problem": ending.problem,
        "started": utc_text(job.started),
        "ended": utc_text(ended),
        "duration_s": round((ended - job.started).total_seconds(), 3),
        "parameters": job.values,
        "changed_parameters": tuple(job.values),
        "served": note_served(job.config),
    }
    if with_page:
        scraps = collect_scraps(cell_outputs(notebook))
        facts |= _read_results(job, scraps, redactor)
        if ending.status == "finished":
            facts["exit_code"] = _outcome_code(scraps)
    run = RunRecord.model_validate(facts)
    if with_page:
        run = run.model_copy(update={"change": find_change(job.root, run, job.aside)})
    run = RunRecord.model_validate(redactor.clean_json(json.loads(run.to_json()), RUN_FILE))
    if redactor.found_in:
        run = _with_leak(run, redactor)
    with suppress(*(() if with_page else (AttributeError, TypeError))):  # metadata of no known form
        repair_notebook(notebook, run)
        names = {"input_path": job.notebook.name, "output_path": job.target.name}
        notebook.metadata["papermill"].update(names)  # in place of paths of this machine
    job.target.write_text(notebook_text(notebook), encoding="utf-8", errors="backslashreplace")
    if with_page:
        others = [name for name in (LOG_FILE, run.record) if name and (job.aside / name).exists()]
        files = (job.target.name, RUN_FILE, *others)
        page = render_report(notebook, run, files=files, root=job.root_href)
        page = redactor.clean_text(page, run.report_name)
        (job.aside / run.report_name).write_text(page, encoding="utf-8", errors="replace")
    run = run.model_copy(update={"files": list_run_files(job.aside)})
    run.write(job.aside / RUN_FILE)
    return run


def _read_results(job: Job, scraps: dict[str, Scrap], redactor: Redactor) -> dict[str, Any]:
    """What a record says beside how the run ended."""
    record = _copy_record(job, scraps, redactor)
    defaults = {name: spec.default for name, spec in job.specs.items()}
    return {
        **read_headline(scraps),
        "title": find_title(job.document, job.name),
        "parameters": json.loads(json.dumps({**defaults, **job.values})),
        "changed_parameters": tuple(k for k, v in job.values.items() if defaults[k] != v),
        "notebook_sha256": sha256_file(job.notebook),
        "lineage": _name_host(record_lineage(), job.config.desk.host),
        "evidence": read_evidence(read_json(job.aside / record)) if record else {},
        "record": record,
    }


def _name_host(lineage: Lineage, name: str | None) -> Lineage:
    """The lineage with the name that this host has at the desk, where it is given one."""
    if name is None:
        return lineage
    return lineage.model_copy(update={"host": lineage.host.model_copy(update={"name": name})})


def _outcome_code(scraps: dict[str, Scrap]) -> ExitCode:
    """The exit code that the notebook published; its verdict's own where it makes no sense."""
    code = scraps["exit_code"].value if "exit_code" in scraps else None
    if isinstance(code, int) and code in VERDICT_CODES:
        return ExitCode(code)
    verdict = scraps["verdict"].value if "verdict" in scraps else "pass"
    return VERDICT_EXIT_CODES.get(str(verdict), ExitCode.PASS)


def _with_leak(run: RunRecord, redactor: Redactor) -> RunRecord:
    message = tr(
        "A secret's value stood in {files}; it was masked here, now change the secret.",
        files=name_some(list(redactor.found_in), len(redactor.found_in)),
    )
    if run.problem:
        message += " " + tr("Before that: {problem}", problem=run.problem.message)
    problem = RunProblem(message=message, cell=run.problem.cell if run.problem else None)
    code = int(STATUS_EXIT_CODES["secret_leak"])
    return run.model_copy(update={"status": "secret_leak", "exit_code": code, "problem": problem})


def _read_executed(job: Job) -> tuple[Any, tuple[int, ...]]:
    """The notebook that papermill left and the code cells that lost an invalid output, or the
    source's copy where it left none or half of one."""
    with suppress(InputError):
        return read_notebook(job.target), ()
    with suppress(InputError):
        return salvage_notebook(job.target)
    notebook = to_node(job.document)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook, ()


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
