"""The host a figure was measured on: its hardware, a fingerprint of that, and its name."""

import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

from opslib.core.files import sha256_bytes
from opslib.core.records import Part

# What a container runtime calls a container, and what is no name at all.
_NOBODY = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}|localhost(\..*)?|")
_LONGEST_NAME = 64
_ISA_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimddp")


class GpuFacts(Part):
    """One NVIDIA card as its driver describes it."""

    name: str
    driver: str
    memory_bytes: int


class HostFacts(Part):
    """What of a host decides how fast a model runs on it, and what the host is called, where it has
    a name that stays: two of equal hardware are told apart by that alone. No address."""

    cpu: str
    isa: tuple[str, ...]
    cpus_total: int
    cpus_usable: int
    cpu_quota_cores: float | None
    memory_bytes: int
    os: str
    python: str
    gpus: tuple[GpuFacts, ...]
    name: str | None = None

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits over processor, usable cores, memory (in GiB) and cards."""
        memory_gib = round(self.memory_bytes / 2**30)
        parts = (self.cpu, self.isa, self.cpus_usable, self.cpu_quota_cores, memory_gib)
        cards = tuple((gpu.name, gpu.driver) for gpu in self.gpus)
        return sha256_bytes(repr((parts, cards)).encode())[:12]

    @property
    def machine(self) -> str:
        """The same without the cards' drivers: what stays one host when a driver is renewed."""
        bare = tuple(gpu.model_copy(update={"driver": ""}) for gpu in self.gpus)
        return self.model_copy(update={"gpus": bare}).fingerprint

    @property
    def label(self) -> str:
        """The host in a few words: its card, or its processor and usable cores."""
        if self.gpus:
            return self.gpus[0].name
        return f"{self.cpu}, {self.cpus_usable} cores"

    @property
    def title(self) -> str:
        """The name, where it is known, and the host in a few words."""
        return f"{self.name} ({self.label})" if self.name else self.label

    def is_same(self, other: "HostFacts") -> bool:
        """Return whether both are one host: of one hardware, and not of two names."""
        unknown = None in (self.name, other.name)
        return self.machine == other.machine and (unknown or self.name == other.name)


def usable_cpus() -> int:
    """Return how many processors this process may keep busy: affinity, cut by the cgroup quota."""
    affinity = len(os.sched_getaffinity(0))
    quota = cgroup_quota_cores()
    return max(1, min(affinity, int(quota))) if quota else affinity


def cgroup_quota_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the cgroup's processor quota in cores, or None where there is none."""
    try:
        text = (cgroup / "cpu.max").read_text().split()
        return None if text[0] == "max" else int(text[0]) / int(text[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        quota = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        period = int((cgroup / "cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


@cache
def host_facts() -> HostFacts:
    """Return the facts of this host, read once."""
    cpu, flags = _read_cpuinfo()
    return HostFacts(
        cpu=cpu,
        isa=tuple(flag for flag in _ISA_FLAGS if flag in flags),
        cpus_total=os.cpu_count() or 1,
        cpus_usable=usable_cpus(),
        cpu_quota_cores=cgroup_quota_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        gpus=_read_gpus(),
        name=read_host_name(),
    )


def read_host_name() -> str | None:
    """Return what the system calls this host; None where that is no name that stays, as a
    container's, which is another one at each start."""
    name = platform.node()
    return None if _NOBODY.fullmatch(name) else name[:_LONGEST_NAME]


def _read_cpuinfo() -> tuple[str, set[str]]:
    model, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return model, flags
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = " ".join(value.split())
        elif key.strip() in ("flags", "Features"):
            return model, set(value.split())
    return model, flags


def _read_gpus() -> tuple[GpuFacts, ...]:
    query = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")
    return parse_gpus(ask_program("nvidia-smi", *query) or "")


def ask_program(*command: str) -> str | None:
    """Return what a program prints that ends well within ten seconds, else None."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout


def parse_gpus(text: str) -> tuple[GpuFacts, ...]:
    """Return the cards listed by nvidia-smi as `name, driver, memory in MiB` lines."""
    rows = ([part.strip() for part in line.split(",")] for line in text.splitlines())
    return tuple(
        GpuFacts(name=row[0], driver=row[1], memory_bytes=int(row[2]) * 2**20)
        for row in rows
        if len(row) == 3 and row[2].isdigit()
    )
