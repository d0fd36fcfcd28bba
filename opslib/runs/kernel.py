"""The kernel of a run: this interpreter, its C-level output in a file, and one way to stop it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_async
from traitlets import default

from opslib.timing.lock import LOCK_HELD_VARIABLE

OWN_KERNEL = "python3"
LIBRARY = Path(__file__).resolve().parents[2]
# The kernel writes what Python prints into cells and leaves the file descriptors alone, so that
# ONNX Runtime's and other C code's lines go where the process's streams go: the side file.
KERNEL_ARGUMENTS = ["--IPKernelApp.capture_fd_output=False"]
StopReason = Literal["timeout", "terminated"]


@dataclass
class KernelGuard:
    """Holds the running kernel of a run so that it can be stopped from a signal or a timer.

    `reason` says why it was stopped, or None while it was not. The process group is killed whole,
    so that what the kernel started ends with it.
    """

    log: Path
    environment: dict[str, str]
    reason: StopReason | None = None
    started: int = 0
    groups: list[int] = field(default_factory=list)

    def stop(self, reason: StopReason) -> None:
        """Kill the kernel and remember why; the first reason stays."""
        self.reason = self.reason or reason
        self.kill()

    def kill(self) -> None:
        """Kill every process group that a kernel of this run has led."""
        for group in self.groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    def manager_class(self) -> type[AsyncKernelManager]:
        """Return a kernel manager class that starts kernels under this guard."""
        return type("GuardedKernelManager", (_GuardedKernelManager,), {"guard": self})

    @contextmanager
    def watch(self, timeout_s: float | None) -> Iterator[None]:
        """Stop the kernel on SIGTERM, on Ctrl-C and when `timeout_s` seconds have passed.

        Signals are watched where they can be: in the main thread.
        """
        timer = None
        if timeout_s is not None:
            timer = threading.Timer(timeout_s, self.stop, args=("timeout",))
            timer.daemon = True
            timer.start()
        previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                previous[number] = signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            for number, handler in previous.items():
                signal.signal(number, handler)
            self.kill()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop("terminated")


class _GuardedKernelManager(AsyncKernelManager):  # type: ignore[misc, unused-ignore]
    """Starts this interpreter's own kernel unless another one is named."""

    guard: KernelGuard

    @default("transport_encryption")
    def _encrypt(self) -> str:
        return "auto"

    @property
    def kernel_spec(self) -> KernelSpec | None:
        if self.kernel_name != OWN_KERNEL:
            return super().kernel_spec
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
            metadata={"debugger": False, "supported_encryption": ["curve"]},
        )

    async def _async_interrupt_kernel(self) -> None:
        """Do nothing: a shutdown would interrupt an idle kernel first, which says so in the log."""

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        guard = self.guard
        guard.started += 1
        with guard.log.open("ab") as log:
            options["env"] = {**os.environ, **guard.environment}
            options["stdout"] = options["stderr"] = log
            await ensure_async(super().start_kernel(**options))
        process = getattr(self.provisioner, "process", None)
        if process is not None:
            guard.groups.append(process.pid)
        if guard.reason is not None:
            guard.kill()


def kernel_environment(config_source: Path) -> dict[str, str]:
    """Return the variables of a run's kernel: the caller's configuration and this library.

    `LOCK_HELD_VARIABLE` tells operations inside that their caller holds the lock already.
    """
    found = os.environ.get("PYTHONPATH")
    return {
        "PILLSNAP_CONFIG": str(config_source),
        LOCK_HELD_VARIABLE: "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONPATH": os.pathsep.join([str(LIBRARY), *([found] if found else [])]),
        "PYTHONUNBUFFERED": "1",
    }
