"""The first few of each kind, the rest only counted: what strangers cause must not fill a disk."""

from __future__ import annotations

from collections.abc import Hashable

FEW = 5
PERIOD_S = 60.0


class Sparing:
    """Lets `FEW` of each kind pass until `drain` is called; whoever uses it calls it each
    `PERIOD_S` and says how many more there were. The kinds must not be a stranger's choice."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, int] = {}

    def take(self, kind: Hashable) -> bool:
        """Count one of `kind`; return whether it is among the first few."""
        count = self._seen[kind] = self._seen.get(kind, 0) + 1
        return count <= FEW

    def drain(self) -> dict[Hashable, int]:
        """Return how many of each kind did not pass, where there were any, and begin anew."""
        seen, self._seen = self._seen, {}
        return {kind: count - FEW for kind, count in seen.items() if count > FEW}
