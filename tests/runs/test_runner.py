"""Real kernels, and every way in which a run can end."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from opslib.core.config import Config
from opslib.core.errors import BusyError, ConfigError, InputError, ParameterError, StorageError
from opslib.core.files import sha256_file
from opslib.core.locks import hold_lock, host_lock_path
from opslib.core.secrets import MASK
from opslib.core.served import ServedModel, keep_served
from opslib.runs.catalogue import scan_runs
from opslib.runs.index import build_index
from opslib.runs.job import RESERVE_BYTES
from opslib.runs.run_record import LOG_FILE, RUN_FILE, RunRecord
from opslib.runs.runner import run_notebook
from opslib.telling.scraps import read_scraps
from tests.runs.makers import make_bench, make_project, publish_cell

ROOT = Path(__file__).resolve().parents[2]
SERVED = ServedModel(
    path=Path("/srv/exp/export/model-b.onnx"),
    sha256="ab" * 32,
    version_tag="b",
    generation=3,
    switched_at_utc="2026-11-20T10:00:00+00:00",
)


def report_of(config: Config) -> Path:
    """Return the one report below the report folder, after looking for leftovers."""
    days = [path for path in config.report_dir.iterdir() if path.is_dir()]
    folders = [path for day in days for path in day.iterdir()]
    assert len(folders) == 1, folders
    assert not folders[0].name.startswith(".")
    return folders[0]


def kernels_of(parent: int) -> list[str]:
    """Return the command lines of ipykernels that this process has started and still has."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if fields[1] == str(parent) and "ipykernel_launcher" in command and fields[0] != "Z":
            found.append(command)
    return found


def check_report(config: Config, run: RunRecord, status: str, code: int, words: str) -> Path:
    """Check that record, notebook, page and leftovers all tell the same end; return the folder."""
    folder = report_of(config)
    assert (run.status, run.exit_code) == (status, code)
    assert RunRecord.read(folder / RUN_FILE) == run
    assert words in run.sentence
    notebook = nbformat.read(folder / "01_toy.ipynb", as_version=4)
    assert notebook.metadata.pillops.status == status
    assert bool(notebook.metadata.papermill.exception) == (status != "finished")
    page = (folder / "01_toy.html").read_text()
    assert run.word in page
    if status != "finished":
        assert "did not finish" in notebook.cells[0].source
        assert words in notebook.cells[0].source
    for entry in run.files:
        assert sha256_file(folder / entry.path) == entry.sha256
    assert not kernels_of(os.getpid())
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, RunRecord, list[str]]:
    """One good run of a notebook that says much of itself."""
    work = (
        "import os, sys\n"
        "os.write(2, b'C-level line\\n')\n"
        "print('from Python', name, count)\n"
        "print('to stderr', file=sys.stderr)\n"
        "print(os.environ['PILLSNAP_CONFIG'], os.getcwd(), sys.executable)"
    )
    folder = tmp_path_factory.mktemp("finished")
    config = make_project(folder, work, publish_cell("pass", ", record_path='bench.json'"))
    make_bench().write(folder / "bench.json")
    config.exp_dir.mkdir(exist_ok=True)
    keep_served(config, SERVED)
    steps: list[str] = []
    run = run_notebook("toy", parameters={"name": "0012345"}, config=config, progress=steps.append)
    return config, run, steps


def test_a_finished_run_leaves_a_dated_folder_that_tells_all(finished: Any) -> None:
    config, run, _ = finished
    folder = check_report(config, run, "finished", 0, "It answers in time.")
    day, clock = folder.parent.name, folder.name[:6]
    assert run.started == f"{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z"
    assert folder.name == run.id.partition("-")[2]
    assert {entry.path for entry in run.files} == {
        "01_toy.ipynb",
        "01_toy.html",
        LOG_FILE,
        "bench.json",
    }
    assert (run.verdict, run.title) == ("pass", "Does the toy work?")
    assert (config.report_dir / "index.html").exists()


def test_a_run_knows_its_parameters_its_evidence_and_its_figures(finished: Any) -> None:
    _, run, _ = finished
    assert run.parameters == {"count": 3, "name": "0012345", "mode": "a"}
    assert run.changed_parameters == ("name",)
    assert run.evidence["model"] == "model.onnx (sha256 abababababab…)"
    assert run.evidence["providers"] == "CPU"
    assert [(f.name, f.value, f.unit, f.better) for f in run.key_figures] == [
        ("latency", 1.5, "ms", "lower")
    ]
    assert run.lineage.versions["papermill"]


def test_a_run_tells_which_model_was_in_service_without_a_path(finished: Any) -> None:
    config, run, _ = finished
    note = {"kind": "model", "name": "model-b.onnx", "sha256": "ab" * 32, "version_tag": "b"}
    assert run.served.model_dump() == {**note, "since_utc": SERVED.switched_at_utc}
    (row,) = scan_runs(config.report_dir)
    assert row.served == run.served


def test_a_cell_sees_the_callers_configuration_folder_and_interpreter(finished: Any) -> None:
    config, _, _ = finished
    outputs = outputs_of(report_of(config), "import os, sys")
    assert f"{config.source} {config.root} {sys.executable}" in outputs
    assert "from Python 0012345 3" in outputs


def test_c_level_output_goes_to_the_side_file_and_pythons_to_the_cells(finished: Any) -> None:
    config, _, _ = finished
    folder = report_of(config)
    assert (folder / LOG_FILE).read_text() == "C-level line\n"
    assert "C-level" not in outputs_of(folder, "import os, sys")
    assert f'href="{LOG_FILE}"' in (folder / "01_toy.html").read_text()
    assert "to stderr" in outputs_of(folder, "import os, sys")


def test_no_path_of_the_report_names_the_hidden_folder(finished: Any) -> None:
    config, _, _ = finished
    for path in report_of(config).iterdir():
        assert ".partial" not in path.read_text()


def test_each_step_is_told_as_one_line(finished: Any) -> None:
    _, _, steps = finished
    assert steps == [
        "cell 1 of 4: Does the toy work?",
        "cell 2 of 4: given parameters",
        "cell 3 of 4: Work",
        "cell 4 of 4: Work",
        "writing the report",
    ]


def test_scraps_are_readable_from_the_executed_notebook(finished: Any) -> None:
    config, _, _ = finished
    scraps = read_scraps(report_of(config) / "01_toy.ipynb")
    assert scraps["latency"].value == 1.5
    assert scraps["verdict"].value == "pass"


@pytest.mark.parametrize(
    ("verdict", "more", "code"),
    [("fail", "", 3), ("inconclusive", "", 4), ("pass", ", exit_code=9", 9)],
)
def test_the_published_verdict_decides_the_exit_code(
    tmp_path: Path, verdict: str, more: str, code: int
) -> None:
    config = make_project(tmp_path, publish_cell(verdict, more))
    check_report(config, run_notebook("toy", config=config), "finished", code, "It answers")


def test_a_cell_that_raises_is_named_with_what_it_raised(tmp_path: Path) -> None:
    config = make_project(tmp_path, "1 / 0", "print('never')")
    run = run_notebook("toy", config=config)
    folder = check_report(config, run, "cell_raised", 1, "Code cell 2 raised ZeroDivisionError")
    assert statuses(folder) == ["completed", "failed", "pending"]
    assert 'id="failed"' in (folder / "01_toy.html").read_text()


def test_a_cell_that_ends_the_notebook_early_is_told_with_what_was_left_out(
    tmp_path: Path,
) -> None:
    config = make_project(tmp_path, "import sys\nsys.exit(0)", "print('never')")
    run = run_notebook("toy", config=config)
    words = "Code cell 2 ended the notebook: 1 code cell after it was not run"
    folder = check_report(config, run, "cell_raised", 1, words)
    assert statuses(folder)[-1] == "pending"


def test_a_run_over_its_time_is_called_timed_out(tmp_path: Path) -> None:
    config = make_project(tmp_path, "import time\ntime.sleep(60)", "print('never')")
    run = run_notebook("toy", config=config, timeout_s=4)
    folder = check_report(config, run, "timeout", 5, "Timed out after 4 s, during")
    assert statuses(folder)[-1] == "pending"


def test_a_kernel_that_is_killed_is_called_dead(tmp_path: Path) -> None:
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    config = make_project(tmp_path, kill, "print('never')")
    run = run_notebook("toy", config=config)
    folder = check_report(config, run, "kernel_died", 138, "The kernel died during code cell 2")
    assert statuses(folder) == ["completed", "failed", "pending"]


def test_a_kernel_that_is_not_installed_is_named(tmp_path: Path) -> None:
    config = make_project(tmp_path, "1")
    run = run_notebook("toy", config=config, kernel="fortran77")
    check_report(config, run, "no_kernel", 8, "'fortran77'")


def test_a_kernel_that_does_not_start_is_tried_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "stillborn" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-c", "raise SystemExit(3)", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    config = make_project(tmp_path / "project", "1")
    steps: list[str] = []
    run = run_notebook("toy", config=config, kernel="stillborn", progress=steps.append)
    check_report(config, run, "kernel_died", 138, "did not start in 3 tries")
    assert sum("trying again" in step for step in steps) == 2


def test_sigterm_saves_a_report_and_ends_the_kernel(tmp_path: Path) -> None:
    config = make_project(tmp_path, "import time\ntime.sleep(60)")
    process = start_run(config, "cell 2")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Terminated" in output
    run = RunRecord.read(report_of(config) / RUN_FILE)
    check_report(config, run, "terminated", 143, "Terminated by a signal during code cell 2")


def test_a_run_whose_runner_is_killed_is_found_and_shown(tmp_path: Path) -> None:
    config = make_project(tmp_path, "print('done')", "import time\ntime.sleep(60)")
    process = start_run(config, "cell 3")
    process.kill()
    process.communicate(timeout=30)
    assert scan_runs(config.report_dir) == []
    page = build_index(config.report_dir).read_text()
    folder = report_of(config)
    run = RunRecord.read(folder / "01_toy.run.json")
    assert (run.status, run.exit_code) == ("terminated", 143)
    assert "cut short at code cell 3" in run.sentence
    assert "cut short at code cell 3" in page
    assert "done" in (folder / "01_toy.html").read_text()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_what_a_killed_run_leaves_shows_no_secret_of_the_configurations_env(tmp_path: Path) -> None:
    secret = "0123456789abcdef"
    leak = f"import os, time\nos.write(2, b'{secret}')\nprint('{secret}')"
    config = make_project(tmp_path, leak, "time.sleep(60)")
    process = start_run(config, "cell 3")
    process.kill()
    process.communicate(timeout=30)
    (tmp_path / ".env").write_text(f"API_KEY={secret}\n")
    build_index(config.report_dir, config.source)
    written = [path.read_text() for path in report_of(config).iterdir()]
    assert any(MASK in text for text in written)
    assert not [text for text in written if secret in text]


def test_a_report_whose_name_somebody_took_meanwhile_stays_whole_and_is_named_where_it_lies(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    taken = (
        f"from pathlib import Path\nPath({str(out)!r}).mkdir()\nPath({str(out / 'x')!r}).touch()"
    )
    config = make_project(tmp_path, "print('measured')", taken)
    aside = tmp_path / ".out.partial"
    with pytest.raises(StorageError, match=rf"lies whole in {aside}.*not empty"):
        run_notebook("toy", config=config, out=out)
    assert RunRecord.read(aside / RUN_FILE).status == "finished"
    assert "measured" in (aside / "01_toy.html").read_text()
    assert [path.name for path in out.iterdir()] == ["x"]


def test_a_run_that_is_still_going_is_left_alone(tmp_path: Path) -> None:
    config = make_project(tmp_path, "import time\ntime.sleep(60)")
    process = start_run(config, "cell 2")
    build_index(config.report_dir)
    assert len(list(config.report_dir.glob("*/.*.partial"))) == 1
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    report_of(config)


def test_a_hidden_folder_of_a_person_s_beside_the_reports_stays(tmp_path: Path) -> None:
    config = make_project(tmp_path, "print('done')")
    mine = config.report_dir / "2026-11-01" / ".figures.partial"
    mine.mkdir(parents=True)
    (mine / "figure.svg").write_text("<svg/>")
    build_index(config.report_dir)
    assert (mine / "figure.svg").exists()


def test_a_disk_that_fills_up_leaves_a_small_report_that_says_so(tmp_path: Path) -> None:
    config = make_project(tmp_path, "print('x' * 3_000_000)")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (RESERVE_BYTES * 4, hard))
    try:
        run = run_notebook("toy", config=config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    folder = check_report(config, run, "storage", 2, "File too large")
    assert (folder / "01_toy.ipynb").stat().st_size < 10_000


def test_a_disk_without_room_for_a_report_is_refused_before_the_kernel(tmp_path: Path) -> None:
    config = make_project(tmp_path, "print('never')")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (RESERVE_BYTES // 2, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            run_notebook("toy", config=config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in config.report_dir.rglob("*") if path.is_file()]


def test_a_planted_secret_is_masked_everywhere_and_the_run_fails(tmp_path: Path) -> None:
    secret = 'k"ey<0123456789abcdef>'
    leak = (
        f"import json, os\nvalue = {secret!r}\nprint(value)\n"
        "os.write(2, value.encode())\n"
        "_ = open('bench.json', 'w').write(json.dumps({'schema': 'x', 'note': value}))"
    )
    config = make_project(tmp_path, leak, publish_cell("pass", ", record_path='bench.json'"))
    (tmp_path / ".env").write_text(f"API_KEY='{secret}'\n")
    run = run_notebook("toy", config=config)
    folder = check_report(config, run, "secret_leak", 7, "change the secret")
    for name in ("01_toy.ipynb", LOG_FILE, "bench.json"):
        assert name in run.sentence
        assert MASK in (folder / name).read_text()
    for path in folder.iterdir():
        assert "0123456789abcdef" not in path.read_text(), path.name


def test_a_secret_by_reference_stays_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIDDEN_VALUE", "0123456789abcdef")
    config = make_project(tmp_path, "import os\nprint(name, os.environ['HIDDEN_VALUE'])")
    run = run_notebook("toy", config=config, parameters={"name": "env:HIDDEN_VALUE"})
    assert run.status == "secret_leak"
    outputs = outputs_of(report_of(config), "import os")
    assert f"env:HIDDEN_VALUE {MASK}" in outputs


def test_a_second_timed_run_is_told_who_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    config = make_project(tmp_path, "1", timed=True)
    with (
        hold_lock(host_lock_path("timing"), "a timed run of 01_bench"),
        pytest.raises(BusyError, match=rf"01_toy: .*01_bench \(pid {os.getpid()}"),
    ):
        run_notebook("toy", config=config)
    assert not any(config.report_dir.iterdir())


def test_a_timed_run_holds_the_lock_and_its_kernel_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ask = (
        "import os\nfrom filelock import FileLock, Timeout\n"
        f"try:\n    FileLock({str(host_lock_path('timing'))!r}).acquire(timeout=0)\n"
        "except Timeout:\n    print('held', os.environ['PILLOPS_TIMING_LOCK_HELD'])"
    )
    config = make_project(tmp_path / "project", ask, timed=True)
    run_notebook("toy", config=config)
    assert "held 1" in outputs_of(report_of(config), "import os")


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"cuont": 1}, ParameterError, "did you mean 'count'"),
        ({"count": "11"}, ParameterError, r"1\.\.10"),
        ({"mode": "c"}, ParameterError, "one of a, b"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_written(
    tmp_path: Path, parameters: dict[str, Any], error: type[Exception], words: str
) -> None:
    config = make_project(tmp_path, "1")
    with pytest.raises(error, match=words):
        run_notebook("toy", config=config, parameters=parameters)
    assert not config.report_dir.exists()


def test_a_report_below_an_experiment_that_is_not_there_is_refused(tmp_path: Path) -> None:
    config = make_project(tmp_path, "1")
    with pytest.raises(ConfigError, match="is its disk mounted"):
        run_notebook("toy", config=config, report_root=config.exp_dir / "reports" / "notebooks")
    assert not config.exp_dir.exists()


def test_an_unknown_notebook_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    config = make_project(tmp_path, "1")
    with pytest.raises(InputError, match="there are: 01_toy"):
        run_notebook("tyo", config=config)
    (tmp_path / "notebooks" / "02_bad.ipynb").write_text("{}")
    with pytest.raises(InputError, match="not a notebook"):
        run_notebook("bad", config=config)


def test_a_report_is_never_overwritten(tmp_path: Path) -> None:
    config = make_project(tmp_path, "1")
    with pytest.raises(InputError, match="exists already"):
        run_notebook("toy", config=config, out=tmp_path)


def test_a_given_folder_holds_the_report_itself(tmp_path: Path) -> None:
    config = make_project(tmp_path / "a {b}", "print(name)")
    run = run_notebook("toy", config=config, out=tmp_path / "mine", parameters={"name": "x"})
    assert run.exit_code == 0
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {
        "01_toy.ipynb",
        "01_toy.html",
        RUN_FILE,
    }


def test_a_run_inside_a_running_event_loop_works_too(tmp_path: Path) -> None:
    """As in a cell of JupyterLab."""
    import asyncio

    config = make_project(tmp_path, "print('hi')")

    async def cell() -> RunRecord:
        return run_notebook("toy", config=config)

    assert asyncio.run(cell()).status == "finished"


def start_run(config: Config, step: str) -> subprocess.Popen[str]:
    """Start `pillops run toy` in a process of its own and wait until a cell begins."""
    process = subprocess.Popen(
        [sys.executable, "-m", "opslib.cli", "run", "toy", "--config", str(config.source)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if process.stderr is None:
        raise AssertionError("no steps")
    for line in process.stderr:
        if line.startswith(step):
            break
    return process


def statuses(folder: Path) -> list[str]:
    notebook = nbformat.read(folder / "01_toy.ipynb", as_version=4)
    return [c.metadata.papermill.status for c in notebook.cells if c.cell_type == "code"]


def outputs_of(folder: Path, start: str) -> str:
    notebook = nbformat.read(folder / "01_toy.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.source.startswith(start))
    return "".join(output.get("text", "") for output in cell.outputs)


INVALID = "{'text/html': 5, 'text/plain': None, 'image/png': None}"


def test_an_output_that_no_notebook_can_hold_fails_the_cell_and_costs_nothing_else(
    tmp_path: Path,
) -> None:
    config = make_project(tmp_path, f"print('kept')\ndisplay({INVALID}, raw=True)", "print('x')")
    run = run_notebook("toy", config=config)
    folder = check_report(config, run, "cell_raised", 1, "Code cell 2 raised: it showed")
    assert "kept" in outputs_of(folder, "print('kept')")


def test_an_output_made_invalid_afterwards_is_left_out_and_fails_the_run(tmp_path: Path) -> None:
    update = (
        "shown = display({'text/plain': 'a'}, raw=True, display_id='d')\nprint('kept')\n"
        f"shown.update({INVALID}, raw=True)"
    )
    config = make_project(tmp_path, update)
    run = run_notebook("toy", config=config)
    folder = check_report(config, run, "cell_raised", 1, "Code cell 2 raised: it showed")
    assert "kept" in outputs_of(folder, "shown")


@pytest.mark.parametrize("part", ["render_report", "record_lineage", "collect_scraps"])
def test_a_page_that_cannot_be_made_leaves_the_notebook_and_a_record_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise LookupError("of no kind foreseen")

    monkeypatch.setattr(f"opslib.runs.finish.{part}", fail)
    config = make_project(tmp_path, "print('kept')")
    run = run_notebook("toy", config=config)
    folder = report_of(config)
    assert (run.status, run.exit_code) == ("report_failed", 1)
    assert "LookupError: of no kind foreseen" in run.sentence
    assert RunRecord.read(folder / RUN_FILE) == run
    assert "kept" in outputs_of(folder, "print('kept')")
    assert not (folder / "01_toy.html").exists()


@pytest.mark.parametrize("metadata", [{"pillops": "hi"}, {"pillops": None}, {"papermill": 7}])
def test_a_notebook_whose_metadata_is_no_mapping_is_refused(
    tmp_path: Path, metadata: dict[str, Any]
) -> None:
    config = make_project(tmp_path, "1")
    path = tmp_path / "notebooks" / "01_toy.ipynb"
    document = json.loads(path.read_text())
    document["metadata"].update(metadata)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="is no mapping"):
        run_notebook("toy", config=config)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300])
def test_a_timeout_that_never_comes_is_refused(tmp_path: Path, seconds: float) -> None:
    config = make_project(tmp_path, "1")
    with pytest.raises(ParameterError, match="--timeout: got"):
        run_notebook("toy", config=config, timeout_s=seconds)
