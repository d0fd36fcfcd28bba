"""One fresh child process: what it returns, how its death reads, and that none is left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.core.errors import DeadlineError
from opslib.timing.workers import MeasureError, Worker, peak_rss_bytes, reset_peak_rss
from tests.waiting import await_end, is_alive

pytestmark = pytest.mark.usefixtures("plain_processes")
_kept: list[int] = []


def keep(value: int) -> int:
    _kept.append(value)
    return sum(_kept)


def read_variable(name: str) -> str | None:
    return os.environ.get(name)


def fail_with(message: str) -> None:
    raise ValueError(message)


def time_out_itself() -> None:
    raise TimeoutError("the model's own timeout")


def die_of(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


def leave_with(code: int) -> None:
    os._exit(code)


def sleep_for_s(seconds: float) -> None:
    time.sleep(seconds)


def grow_by(size_bytes: int) -> int:
    return len(bytearray(os.urandom(1024)) * (size_bytes // 1024))


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def test_a_worker_is_another_process_that_keeps_its_state_and_gets_its_environment() -> None:
    with Worker("demo", env={"DEMO_THREADS": "3"}) as worker:
        assert worker.pid != os.getpid()
        assert worker.call(keep, 1) == 1
        assert worker.call(keep, 2) == 3
        assert worker.call(read_variable, "DEMO_THREADS") == "3"
        pid = worker.pid
    assert _kept == []
    assert not is_alive(pid)


def test_an_exception_of_the_function_arrives_and_the_worker_goes_on() -> None:
    with Worker("demo") as worker:
        with pytest.raises(ValueError, match="bad weights"):
            worker.call(fail_with, "bad weights")
        with pytest.raises(TimeoutError, match="the model's own"):
            worker.call(time_out_itself, timeout_s=60)
        assert worker.call(keep, 5) == 5


def test_a_killed_worker_is_reported_by_name_function_and_signal() -> None:
    with Worker("torch") as worker:
        with pytest.raises(MeasureError, match=r"torch: .*SIGKILL during die_of"):
            worker.call(die_of, signal.SIGKILL)
        with pytest.raises(MeasureError, match="not running"):
            worker.call(keep, 1)


def test_a_worker_that_exits_is_reported_by_its_exit_code() -> None:
    with Worker("ort") as worker, pytest.raises(MeasureError, match="exited with code 7"):
        worker.call(leave_with, 7)


def test_a_hanging_call_is_killed_at_its_timeout() -> None:
    with Worker("hung") as worker:
        pid = worker.pid
        with pytest.raises(DeadlineError, match=r"hung: sleep_for_s .* 0.1 s"):
            worker.call(sleep_for_s, 60, timeout_s=0.1)
        assert not is_alive(pid)


def test_an_interrupted_call_leaves_no_child_behind() -> None:
    def interrupt(signal_number: int, frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), Worker("busy") as worker:
            pid = worker.pid
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            worker.call(sleep_for_s, 60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not is_alive(pid)


def test_a_worker_outside_its_block_says_that_it_is_not_running() -> None:
    worker = Worker("early")
    with pytest.raises(MeasureError, match=r"early: .*not running"):
        worker.call(keep, 1)
    with pytest.raises(MeasureError, match=r"early: .*not running"):
        _ = worker.pid


def test_a_function_that_cannot_be_sent_is_refused_by_name() -> None:
    with Worker("demo") as worker:
        with pytest.raises(MeasureError, match=r"demo: .*<lambda> cannot be sent"):
            worker.call(lambda: 1)
        assert worker.call(keep, 1) == 1


def test_a_function_of_a_notebook_is_refused_before_it_breaks_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setattr(keep, "__module__", "__main__")
    with Worker("demo") as worker, pytest.raises(MeasureError, match="keep is defined in a note"):
        worker.call(keep, 1)


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal\n"
        "from opslib.timing.workers import Worker\n"
        "if __name__ == '__main__':\n"
        "    with Worker('orphan') as worker:\n"
        "        print(worker.pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=60,
        check=False,
    )
    pid = int(done.stdout)
    await_end(pid)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux keeps the peak")
def test_the_peak_memory_of_a_worker_counts_from_its_reset() -> None:
    size_bytes = 64 * 2**20
    with Worker("memory") as worker:
        worker.call(grow_by, size_bytes)
        high_bytes = worker.call(peak_rss_bytes)
        assert high_bytes > size_bytes
        assert worker.call(reset_peak_rss)
        assert worker.call(peak_rss_bytes) < high_bytes - size_bytes // 2
