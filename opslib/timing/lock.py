"""One timed operation at a time: on this host, and on each of its cards."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from opslib.core.locks import hold_lock, host_lock_path

# Set for what a timed run starts: its caller holds the lock already.
LOCK_HELD_VARIABLE = "PILLOPS_TIMING_LOCK_HELD"
HOST_LOCK = "timing"


@contextmanager
def hold_timing_lock(
    purpose: str, *, providers: Sequence[str] = (), wait_s: float = 0.0
) -> Iterator[None]:
    """Hold the host's timing lock for the block, and the card's where CUDA may run. `providers`:
    short names of the providers that will run. Raises BusyError: another timed operation holds it;
    the message says which."""
    if os.environ.get(LOCK_HELD_VARIABLE) == "1":
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(hold_lock(host_lock_path(HOST_LOCK), purpose, wait_s=wait_s))
        if set(providers) - {"CPU"}:
            stack.enter_context(hold_lock(host_lock_path(_card()), purpose, wait_s=wait_s))
        yield


def _card() -> str:
    """The first card that this process may see, as its lock is called."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return f"gpu-{visible if visible.isdigit() else 0}"
