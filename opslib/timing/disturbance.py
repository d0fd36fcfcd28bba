"""What disturbed a measurement: waiting for a CPU, load, throttling, frequency, foreign GPU jobs.

Run delay is what counts: the share of wall time during which the timed thread was ready to run
and was not given a CPU (second field of `/proc/thread-self/schedstat`, in nanoseconds). Steal time
stays at zero through episodes that slow a model several times. What a host does not tell is None.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opslib.core.errors import OpsError
from opslib.core.records import Part

MAX_RUN_DELAY_PCT = 20.0
NVIDIA_SMI_TIMEOUT_S = 10.0
NVIDIA_SMI_QUERY = ("--query-compute-apps=pid,process_name", "--format=csv,noheader")

_SCHEDSTAT = Path("/proc/thread-self/schedstat")
_TASKS = Path("/proc/self/task")
_STAT = Path("/proc/stat")
_CGROUP_CPU_STATS = (Path("/sys/fs/cgroup/cpu.stat"), Path("/sys/fs/cgroup/cpu/cpu.stat"))
_CPU_FREQUENCIES = "cpu[0-9]*/cpufreq/scaling_cur_freq"


class Disturbance(Part):
    """What went on around a measurement of `wall_s` seconds; None where the host does not tell.
    `other_cpu_pct` is what other processes used, in percent of one CPU; a child of this process
    counts among them until it has ended."""

    wall_s: float
    run_delay_pct: float | None
    other_cpu_pct: float | None
    load_average: float | None
    throttled_s: float | None
    cpu_frequency_mhz: float | None
    foreign_gpu_processes: tuple[str, ...] | None

    @property
    def disturbed(self) -> bool:
        """Whether the timed thread waited for a CPU longer than a measurement stands."""
        return is_disturbed(self.run_delay_pct)


@dataclass
class DisturbanceWatch:
    """Holds `disturbance` once the watched block has ended."""

    disturbance: Disturbance | None = None

    def result(self) -> Disturbance:
        """Return what disturbed the watched block. Raises OpsError: the block has not ended."""
        if self.disturbance is None:
            raise OpsError("the watched block has not ended")
        return self.disturbance


@contextmanager
def watch_disturbance(gpu: bool = False) -> Iterator[DisturbanceWatch]:
    """Record in the yielded watch what disturbed the block, seen from the calling thread. `gpu`:
    ask nvidia-smi for other processes' GPU work, after the block (takes up to a second)."""
    watch = DisturbanceWatch()
    started = time.perf_counter()
    delay_before = read_run_delay_s()
    throttled_before = read_throttled_s()
    others_before = read_other_cpu_s()
    yield watch
    wall_s = time.perf_counter() - started
    watch.disturbance = Disturbance(
        wall_s=wall_s,
        run_delay_pct=share_pct(_growth(read_run_delay_s(), delay_before), wall_s),
        other_cpu_pct=share_pct(_growth(read_other_cpu_s(), others_before), wall_s),
        load_average=read_load_average(),
        throttled_s=_growth(read_throttled_s(), throttled_before),
        cpu_frequency_mhz=read_cpu_frequency_mhz(),
        foreign_gpu_processes=list_foreign_gpu_processes() if gpu else None,
    )


def is_disturbed(run_delay_pct: float | None) -> bool:
    """Whether this run delay (percent of wall time) makes a measurement unreliable."""
    return run_delay_pct is not None and run_delay_pct > MAX_RUN_DELAY_PCT


def share_pct(part_s: float | None, wall_s: float) -> float | None:
    """Percent of the wall time that a part took, or None where the part is unknown."""
    if part_s is None or wall_s <= 0:
        return None
    return 100 * part_s / wall_s


def read_run_delay_s() -> float | None:
    """Seconds that the calling thread has waited, ready to run, for a CPU since it began."""
    text = _read_text(_SCHEDSTAT)
    return None if text is None else parse_run_delay_s(text)


def read_thread_delays_s() -> dict[str, float]:
    """Seconds that each thread of this process has waited for a CPU, by thread id. A pool is as
    slow as its slowest thread: on a barrier the main thread spins and does not wait, while a worker
    that was pushed off its CPU does."""
    found = {}
    for path in _TASKS.glob("*/schedstat"):
        delay_s = parse_run_delay_s(_read_text(path) or "")
        if delay_s is not None:
            found[path.parent.name] = delay_s
    return found


def worst_growth_s(before: dict[str, float], after: dict[str, float]) -> float | None:
    """Longest wait of any one thread between two readings, or None where none is known."""
    grown = [delay_s - before.get(thread, 0.0) for thread, delay_s in after.items()]
    return max(grown, default=None)


def parse_run_delay_s(schedstat: str) -> float | None:
    """Run delay in seconds from a line of schedstat, or None where the kernel keeps none."""
    fields = schedstat.split()
    if len(fields) != 3 or not fields[1].isdigit() or fields[0] == "0":
        return None
    return int(fields[1]) / 1e9


def read_other_cpu_s() -> float | None:
    """CPU seconds used on this host so far, less those of this process and its ended children."""
    text = _read_text(_STAT)
    busy_ticks = None if text is None else parse_busy_ticks(text)
    if busy_ticks is None:
        return None
    own = os.times()
    own_s = own.user + own.system + own.children_user + own.children_system
    return busy_ticks / os.sysconf("SC_CLK_TCK") - own_s


def parse_busy_ticks(stat: str) -> int | None:
    """Clock ticks that all CPUs spent working, from /proc/stat (idle, iowait, steal left out)."""
    fields = stat.partition("\n")[0].split()
    if len(fields) < 8 or fields[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[1:8])
    return user + nice + system + irq + softirq


def read_throttled_s() -> float | None:
    """Seconds for which the container's CPU quota has held its processes back so far."""
    for path in _CGROUP_CPU_STATS:
        text = _read_text(path)
        if text is not None:
            return parse_throttled_s(text)
    return None


def parse_throttled_s(cpu_stat: str) -> float | None:
    """Throttled seconds from cpu.stat: `throttled_usec` or (cgroup 1) `throttled_time`, ns."""
    fields = dict(line.split(maxsplit=1) for line in cpu_stat.splitlines() if " " in line)
    for key, per_s in (("throttled_usec", 1e6), ("throttled_time", 1e9)):
        if fields.get(key, "").strip().isdigit():
            return int(fields[key]) / per_s
    return None


def read_load_average() -> float | None:
    """Mean count of runnable tasks over the last minute."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def read_cpu_frequency_mhz(root: Path = Path("/sys/devices/system/cpu")) -> float | None:
    """Mean current frequency of the CPUs, where the kernel publishes it."""
    texts = [_read_text(path) for path in root.glob(_CPU_FREQUENCIES)]
    frequencies_khz = [int(text) for text in texts if text is not None and text.strip().isdigit()]
    if not frequencies_khz:
        return None
    return sum(frequencies_khz) / len(frequencies_khz) / 1000


def list_foreign_gpu_processes() -> tuple[str, ...] | None:
    """Compute processes on the GPU other than this one and its parent; None without nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, *NVIDIA_SMI_QUERY],
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_gpu_processes(answer.stdout, own_pids=frozenset({os.getpid(), os.getppid()}))


def parse_gpu_processes(text: str, own_pids: frozenset[int]) -> tuple[str, ...]:
    """`pid name` of each compute process that nvidia-smi lists, without our own. A line without a
    pid is dropped: inside WSL the driver lists processes it cannot name."""
    found = []
    for line in text.splitlines():
        pid, comma, name = line.partition(",")
        if comma and pid.strip().isdigit() and int(pid) not in own_pids:
            found.append(f"{int(pid)} {name.strip()}")
    return tuple(found)


def _growth(after: float | None, before: float | None) -> float | None:
    """After minus before, never below zero: clock ticks round."""
    return None if after is None or before is None else max(0.0, after - before)


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
