"""What disturbed a measurement, from captured texts of the kernel and the driver."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from opslib.timing import disturbance
from opslib.timing.disturbance import (
    Disturbance,
    is_disturbed,
    parse_busy_ticks,
    parse_gpu_processes,
    parse_run_delay_s,
    parse_throttled_s,
    read_cpu_frequency_mhz,
    share_pct,
    watch_disturbance,
)

pytestmark = pytest.mark.alone

NVIDIA_SMI = """\
1234, /usr/bin/python3
 4321, C:\\Games\\render.exe
[Not Found], [Insufficient Permissions]
77, trtexec, with a comma
"""
CPU_STAT_2 = "usage_usec 120\nuser_usec 100\nnr_periods 9\nnr_throttled 2\nthrottled_usec 250000\n"
CPU_STAT_1 = "nr_periods 9\nnr_throttled 2\nthrottled_time 250000000\n"


def test_run_delay_is_the_second_field_of_schedstat() -> None:
    assert parse_run_delay_s("1005544234 276475000 15\n") == pytest.approx(0.276475)


@pytest.mark.parametrize("text", ["", "0 0 0\n", "1 2\n", "a b c\n"])
def test_a_kernel_without_scheduler_statistics_gives_no_run_delay(text: str) -> None:
    assert parse_run_delay_s(text) is None


@pytest.mark.parametrize("text", [CPU_STAT_1, CPU_STAT_2])
def test_throttling_is_read_from_both_kinds_of_cgroup(text: str) -> None:
    assert parse_throttled_s(text) == pytest.approx(0.25)


def test_a_cgroup_without_a_quota_tells_no_throttling() -> None:
    assert parse_throttled_s("usage_usec 120\nuser_usec 100\n") is None


def test_busy_time_leaves_out_idle_waiting_and_stolen_ticks() -> None:
    text = "cpu  100 20 30 9999 500 4 6 777 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert parse_busy_ticks(text) == 160


def test_own_processes_and_lines_without_a_pid_are_not_foreign() -> None:
    assert parse_gpu_processes(NVIDIA_SMI, own_pids=frozenset({1234})) == (
        "4321 C:\\Games\\render.exe",
        "77 trtexec, with a comma",
    )


def test_no_gpu_process_is_an_empty_list() -> None:
    assert parse_gpu_processes("", own_pids=frozenset()) == ()


def test_a_host_without_nvidia_smi_tells_nothing_about_gpu_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert disturbance.list_foreign_gpu_processes() is None


def test_an_nvidia_smi_that_fails_tells_nothing_and_one_that_answers_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert disturbance.list_foreign_gpu_processes() is None
    program.write_text(f"#!/bin/sh\necho '{os.getpid()}, python3'\necho '99999999, trtexec'\n")
    assert disturbance.list_foreign_gpu_processes() == ("99999999 trtexec",)


def test_the_frequency_is_the_mean_over_the_cpus_in_mhz(tmp_path: Path) -> None:
    for cpu, khz in (("cpu0", 2_000_000), ("cpu1", 3_000_000)):
        folder = tmp_path / cpu / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
    assert read_cpu_frequency_mhz(tmp_path) == 2500.0
    assert read_cpu_frequency_mhz(tmp_path / "nowhere") is None


def test_more_than_a_fifth_of_the_time_waiting_is_disturbed_and_unknown_is_not() -> None:
    assert is_disturbed(20.1)
    assert not is_disturbed(20.0)
    assert not is_disturbed(None)


def test_a_share_of_an_unknown_part_is_unknown() -> None:
    assert share_pct(None, 1.0) is None
    assert share_pct(0.5, 2.0) == 25.0


def test_a_watch_holds_the_disturbance_once_the_block_has_ended() -> None:
    with watch_disturbance() as watch:
        assert watch.disturbance is None
        sum(range(1000))
    seen = watch.disturbance
    assert seen is not None
    assert seen.wall_s > 0
    assert seen.foreign_gpu_processes is None
    assert Disturbance.model_validate_json(seen.model_dump_json()) == seen


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or disturbance.read_run_delay_s() is None,
    reason="the kernel keeps no run delay",
)
def test_a_thread_that_shares_its_cpu_is_seen_to_wait() -> None:
    allowed = os.sched_getaffinity(0)
    hog = os.fork()
    if hog == 0:  # pragma: no cover
        os.sched_setaffinity(0, {min(allowed)})
        while True:
            pass
    try:
        os.sched_setaffinity(0, {min(allowed)})
        with watch_disturbance() as watch:
            for _ in range(60):
                sum(range(200_000))
    finally:
        os.kill(hog, 9)
        os.waitpid(hog, 0)
        os.sched_setaffinity(0, allowed)
    assert watch.disturbance is not None
    assert watch.disturbance.disturbed


def test_the_thread_that_waited_longest_counts() -> None:
    before = {"1": 1.0, "2": 5.0}
    assert disturbance.worst_growth_s(before, {"1": 1.5, "2": 5.1, "3": 0.2}) == 0.5
    assert disturbance.worst_growth_s(before, {}) is None


def test_each_thread_of_this_process_has_its_own_delay() -> None:
    delays_s = disturbance.read_thread_delays_s()
    assert all(delay_s >= 0 for delay_s in delays_s.values())
    if disturbance.read_run_delay_s() is not None:
        assert str(threading.get_native_id()) in delays_s
