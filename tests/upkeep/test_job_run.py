"""H-8: a scheduled job is locked, ended in time, logged, and its dead man hears of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nbformat
import pytest

from opslib.core.errors import BusyError, DeadlineError, ExitCode, UsageError
from opslib.core.locks import hold_lock
from opslib.runs.run_record import RunRecord
from opslib.upkeep import job_status
from opslib.upkeep.job_status import RAN_WELL, JobStatus, jobs_dir, read_status, track_job
from opslib.upkeep.jobs import Command, Job, Place, find_job, run_job
from tests.models import write_config
from tests.upkeep.crontabs import Host
from tests.waiting import await_end, await_that

PLACE = Place(root=Path(__file__).resolve().parents[2], bin=Path(sys.executable).parent)


def job_of(*commands: Command, name: str = "index") -> Job:
    return Job(name, f"cron_{name}.out", lambda _place, _config, _moment: commands)


def silent(_line: str) -> None:
    pass


def status_of(host: Host, name: str = "index") -> JobStatus:
    status = read_status(host.config, name)
    assert status is not None
    return status


@dataclass
class DeadMan:
    """A real local server that keeps which paths were fetched and answers as told."""

    paths: list[str] = field(default_factory=list)
    answer: int = 200
    url: str = ""


@pytest.fixture
def dead_man() -> Iterator[DeadMan]:
    kept = DeadMan()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kept.paths.append(self.path)
            self.send_response(kept.answer)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    kept.url = f"http://127.0.0.1:{server.server_port}/s3cr3t-check?rid=1"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()
    thread.join()


def watched(host: Host, url: str) -> Host:
    host.config_path.with_name(".env").write_text(f"PING_INDEX={url}\n")
    return Host(
        host.folder, write_config(host.folder, "schedule: {dead_man: {index: env:PING_INDEX}}\n")
    )


def test_the_commands_run_in_order_and_the_end_is_kept(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    two = job_of(("echo", "one"), ("sh", "-c", 'echo "$PILLSNAP_CONFIG"'))
    assert run_job(host.config, two, PLACE, show=said.append) == 0
    assert capfd.readouterr().out == f"one\n{host.config_path}\n"
    assert said[0].endswith(" UTC: echo one")
    status = status_of(host)
    assert status.exit_code == 0
    assert status.last_good_at_utc == status.ended_at_utc


def test_a_command_that_fails_ends_the_job_with_its_code(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    run_job(host.config, job_of(("true",)), PLACE, show=silent)
    good = status_of(host).last_good_at_utc
    code = run_job(host.config, job_of(("sh", "-c", "exit 3"), ("echo", "two")), PLACE, show=silent)
    assert code == 3
    assert "two" not in capfd.readouterr().out
    assert status_of(host).exit_code not in RAN_WELL
    assert status_of(host).last_good_at_utc == good


@pytest.mark.parametrize("code", [ExitCode.INCONCLUSIVE, ExitCode.SKIPPED])
def test_what_came_to_its_end_with_a_remark_goes_on_and_keeps_the_remark(
    host: Host, code: ExitCode, capfd: pytest.CaptureFixture[str]
) -> None:
    commands = job_of(("sh", "-c", f"exit {code.value}"), ("echo", "two"))
    assert run_job(host.config, commands, PLACE, show=silent) == code
    assert "two" in capfd.readouterr().out
    assert status_of(host).exit_code in RAN_WELL


def test_the_same_job_does_not_overlap_and_the_other_runs_account_stands(host: Host) -> None:
    run_job(host.config, job_of(("true",)), PLACE, show=silent)
    before = status_of(host)
    with (
        hold_lock(jobs_dir(host.config) / "index.lock", "a run"),
        pytest.raises(BusyError, match="the scheduled index: the lock is held by a run"),
    ):
        run_job(host.config, job_of(("false",)), PLACE, show=silent)
    assert status_of(host) == before


def test_a_job_that_takes_too_long_is_ended_with_all_it_started(host: Host, tmp_path: Path) -> None:
    slow = Host(host.folder, write_config(host.folder, "schedule: {timeout_s: 0.5}\n"))
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! $$ > {pids}; wait"
    with pytest.raises(DeadlineError, match=r"schedule\.timeout_s"):
        run_job(slow.config, job_of(("sh", "-c", script)), PLACE, show=silent)
    assert status_of(slow).exit_code == ExitCode.DEADLINE
    for pid in pids.read_text().split():
        await_end(int(pid))


def test_a_terminated_job_leaves_nothing_behind_and_says_so(host: Host, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"""
from pathlib import Path
from opslib.telling.doors import run_door
from opslib.core.config import load_config
from opslib.upkeep.jobs import run_job
from opslib.upkeep.jobs import Job, Place
words = (("sh", "-c", "echo $$ > {pid_file}; exec sleep 600"),)
job = Job("index", "x", lambda *_: words)
place = Place(Path("/"), Path("/usr/bin"))
config = load_config({str(host.config_path)!r})
run_door(lambda: run_job(config, job, place, show=print))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    pid = await_pid(pid_file)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ExitCode.TERMINATED
    await_end(pid)
    assert status_of(host).exit_code == ExitCode.TERMINATED


def test_a_program_that_is_missing_is_named(host: Host) -> None:
    with pytest.raises(UsageError, match="no-such-program: cannot be started"):
        run_job(host.config, job_of(("no-such-program",)), PLACE, show=silent)
    assert status_of(host).exit_code == ExitCode.USAGE


def test_an_unknown_job_is_refused_with_those_there_are(host: Host) -> None:
    answer = host.call("run", "backup")
    assert answer.returncode == 2
    assert "'backup': no such job; allowed: maintenance, index, release" in answer.stderr


def test_a_good_run_is_told_to_the_dead_man(host: Host, dead_man: DeadMan) -> None:
    place, said = watched(host, dead_man.url), list[str]()
    run_job(place.config, job_of(("true",)), PLACE, show=said.append)
    assert dead_man.paths == ["/s3cr3t-check?rid=1"]
    assert said[-1] == "index: dead man told"
    assert status_of(place).dead_man == "told"


def test_a_bad_run_is_told_as_a_failure_and_the_address_shows_nowhere(
    host: Host, dead_man: DeadMan
) -> None:
    place, said = watched(host, dead_man.url), list[str]()
    run_job(place.config, job_of(("false",)), PLACE, show=said.append)
    assert dead_man.paths == ["/s3cr3t-check/fail?rid=1"]
    kept = (jobs_dir(place.config) / "index.json").read_text()
    assert "s3cr3t" not in kept + "".join(said)


@pytest.mark.parametrize("way", ["refused", "unreachable", "unset", "nonsense"])
def test_a_dead_man_that_does_not_hear_changes_no_result(
    host: Host, dead_man: DeadMan, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(job_status, "_PAUSES_S", (0.0, 0.0))
    dead_man.answer = 503
    urls = {
        "refused": dead_man.url,
        "unreachable": "http://127.0.0.1:9/s3cr3t",
        "unset": "",
        "nonsense": "s3cr3t",
    }
    place, said = watched(host, urls[way]), list[str]()
    assert run_job(place.config, job_of(("true",)), PLACE, show=said.append) == 0
    assert said[-1].startswith("index: dead man not told: ")
    assert "s3cr3t" not in said[-1]
    assert len(dead_man.paths) == (2 if way == "refused" else 0)


def test_a_busy_run_is_not_told(host: Host, dead_man: DeadMan) -> None:
    place = watched(host, dead_man.url)
    assert track_job(place.config, "index", lambda: int(ExitCode.BUSY), show=silent) == 6
    assert dead_man.paths == []
    assert read_status(place.config, "index") is None


def test_no_account_is_kept_of_an_experiment_that_is_not_there(host: Host) -> None:
    host.config.exp_dir.rmdir()
    assert track_job(host.config, "index", lambda: 2, show=silent) == 2
    assert not host.config.exp_dir.exists()


def test_h8_the_monthly_benchmark_is_plain_papermill_and_becomes_a_report(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.v4.new_notebook()
    parameters = nbformat.v4.new_code_cell("config_path: str | None = None")
    parameters.metadata["tags"] = ["parameters"]
    body = nbformat.v4.new_code_cell("print(config_path)")
    notebook.cells = [nbformat.v4.new_markdown_cell("# How fast?"), parameters, body]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    (host.folder / "notebooks").mkdir()
    nbformat.write(notebook, host.folder / "notebooks" / "01_bench.ipynb")
    place = Place(root=host.folder, bin=PLACE.bin)
    assert run_job(host.config, find_job("bench"), place, show=silent) == 0
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    (record,) = (host.config.report_dir / today).glob("*-01_bench-papermill/*.run.json")
    run = RunRecord.read(record)
    assert (run.notebook, run.status) == ("01_bench", "finished")
    assert run.parameters == {"config_path": str(host.config_path)}
    assert record.with_name(run.report_name).exists()
    assert (host.config.report_dir / "index.html").exists()


def await_pid(path: Path) -> int:
    await_that(lambda: path.exists() and path.read_text().strip(), "the command's start")
    return int(path.read_text())
