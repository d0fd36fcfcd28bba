"""Giving memory back: what a freed model leaves in the heap is kept by glibc unless it is asked."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def give_back_memory() -> None:
    """Return the free pages of the heap to the system, where the C library can.

    Without it a service grows by a third over some tens of switches: each model is loaded into
    the holes that requests left between the weights of the last.
    """
    trim = _find_trim()
    if trim is not None:
        trim(0)


@cache
def _find_trim() -> Any:
    """glibc's `malloc_trim`, or None with another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
