"""How much memory a process holds, and whether it grows from swap to swap."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from opslib.ops.drill.record import Memory

FROM_SWAP = 10
AROUND = 5


def read_rss_bytes(pid: int) -> int | None:
    """Return the resident bytes of a process, or None where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines() if line.startswith("VmRSS:"))
    return next((int(words[1]) * 1024 for words in lines), None)


def growth_pct(memory: Sequence[Memory]) -> float | None:
    """Return how much larger the process was after the last of the switches that look for leaks
    than after the tenth, in percent, or None with fewer than twenty.

    Each end is the median of eleven switches (around the tenth, and the last): what is in flight
    when memory is read makes a single value jump.
    """
    by_swap = {one.swap: one.rss_bytes for one in memory if one.during == "leak"}
    last = max(by_swap, default=0)
    if last < 2 * FROM_SWAP:
        return None
    early = _values(by_swap, FROM_SWAP - AROUND, FROM_SWAP + AROUND)
    late = _values(by_swap, last - 2 * AROUND, last)
    if not early or not late:
        return None
    return 100 * (statistics.median(late) / statistics.median(early) - 1)


def _values(by_swap: dict[int, int], first: int, last: int) -> list[int]:
    return [by_swap[swap] for swap in range(first, last + 1) if swap in by_swap]
