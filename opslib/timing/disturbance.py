"""What disturbed a measurement: waiting for a CPU, load, throttling, frequency, foreign GPU jobs.

Run delay is what counts: the share of wall time during which the timed thread was ready to run
and was not given a CPU (second field of `/proc/thread-self/schedstat`, in nanoseconds). Steal time
stays at zero through episodes that slow a model several times. What a host does not tell is None.
"""

import os
import statistics
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
    return parse_run_delay_s(_read_text(_SCHEDSTAT) or "")


def read_thread_delays_s() -> dict[str, float]:
    """Seconds that each thread of this process has waited for a CPU, by thread id. A pool is as
    slow as its slowest thread: on a barrier the main thread spins and does not wait, while a worker
    that was pushed off its CPU does."""
    texts = {path.parent.name: _read_text(path) or "" for path in _TASKS.glob("*/schedstat")}
    delays = {thread: parse_run_delay_s(text) for thread, text in texts.items()}
    return {thread: delay_s for thread, delay_s in delays.items() if delay_s is not None}


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
    busy_ticks = parse_busy_ticks(_read_text(_STAT) or "")
    if busy_ticks is None:
        return None
    return busy_ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def parse_busy_ticks(stat: str) -> int | None:
    """Clock ticks that all CPUs spent working, from /proc/stat (idle, iowait, steal left out)."""
    fields = stat.partition("\n")[0].split()
    if len(fields) < 8 or fields[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[1:8])
    return user + nice + system + irq + softirq


def read_throttled_s() -> float | None:
    """Seconds for which the container's CPU quota has held its processes back so far."""
    texts = (text for path in _CGROUP_CPU_STATS if (text := _read_text(path)) is not None)
    return next(map(parse_throttled_s, texts), None)


def parse_throttled_s(cpu_stat: str) -> float | None:
    """Throttled seconds from cpu.stat: `throttled_usec` or (cgroup 1) `throttled_time`, ns."""
    fields = dict(line.split(maxsplit=1) for line in cpu_stat.splitlines() if " " in line)
    known = (("throttled_usec", 1e6), ("throttled_time", 1e9))
    found = ((fields.get(key, "").strip(), per_s) for key, per_s in known)
    return next((int(text) / per_s for text, per_s in found if text.isdigit()), None)


def read_load_average() -> float | None:
    """Mean count of runnable tasks over the last minute."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def read_cpu_frequency_mhz(root: Path = Path("/sys/devices/system/cpu")) -> float | None:
    """Mean current frequency of the CPUs, where the kernel publishes it."""
    texts = [_read_text(path) or "" for path in root.glob(_CPU_FREQUENCIES)]
    frequencies_khz = [int(text) for text in texts if text.strip().isdigit()]
    return statistics.mean(frequencies_khz) / 1000 if frequencies_khz else None


def list_foreign_gpu_processes() -> tuple[str, ...] | None:
    """Compute processes on the GPU other than this one and its parent; None without nvidia-smi."""
    try:
        said = subprocess.check_output(
            ["nvidia-smi", *NVIDIA_SMI_QUERY],
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=NVIDIA_SMI_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_gpu_processes(said, own_pids=frozenset({os.getpid(), os.getppid()}))


def parse_gpu_processes(text: str, own_pids: frozenset[int]) -> tuple[str, ...]:
    """`pid name` of each compute process that nvidia-smi lists, without our own. A line without a
    pid is dropped: inside WSL the driver lists processes it cannot name."""
    found = (line.partition(",") for line in text.splitlines())
    named = [
        (int(pid), name.strip()) for pid, comma, name in found if comma and pid.strip().isdigit()
    ]
    return tuple(f"{pid} {name}" for pid, name in named if pid not in own_pids)


def _growth(after: float | None, before: float | None) -> float | None:
    """After minus before, never below zero: clock ticks round."""
    return None if after is None or before is None else max(0.0, after - before)


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
