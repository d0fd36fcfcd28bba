"""Giving memory back: what a freed model leaves in the heap is kept by glibc unless it is asked."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back_memory() -> None:
    """Return the free pages of the heap to the system, where the C library can.

    Without it a service grows by a third over some tens of switches: each model is loaded into
    the holes that requests left between the weights of the last.
    """
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
