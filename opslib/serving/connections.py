"""How many connections are held, and which of them makes room for a new one.

Whoever connects is a stranger until a request of theirs has shown the key. Where all places are
taken, the stranger who was waited for longest is closed, so that a new one always gets a turn: its
request may be `/health`, or have the key. Those with the key are never closed for others; a share
of the places is kept from them, so that there is always somebody who can make room.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import OrderedDict

from opslib.core.errors import ConfigError
from opslib.serving.heap import give_back_memory
from opslib.serving.logs import CAUSED_OUTSIDE

RESERVED_DESCRIPTORS = 256  # for files, the trial's pipes and what is accepted in one turn
MIN_CONNECTIONS = 32
_KEPT_FOR_STRANGERS = 8  # one of so many places
_RUSH = 64  # so many connections at once are no everyday thing

SLOT = "slot"
_log = logging.getLogger(CAUSED_OUTSIDE)


class Slot:
    """The place of one connection."""

    __slots__ = ("_connections", "transport")

    def __init__(self, connections: Connections, transport: asyncio.Transport) -> None:
        self._connections = connections
        self.transport = transport

    def vouch(self) -> bool:
        """The request under way has the key; return whether there is a place for another such."""
        return self._connections.vouch(self)

    def doubt(self) -> None:
        """Another request begins: nobody knows yet whose it is."""
        self._connections.doubt(self)

    def leave(self) -> None:
        """The connection has ended."""
        self._connections.leave(self)


class Connections:
    """The connections of one service: `limit` of them at most, used from its event loop alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known_limit = limit - max(1, limit // _KEPT_FOR_STRANGERS)
        self._strangers: OrderedDict[Slot, None] = OrderedDict()  # waited for longest first
        self._known: set[Slot] = set()
        self._most = 0

    def __len__(self) -> int:
        return len(self._strangers) + len(self._known)

    def enter(self, transport: asyncio.Transport) -> Slot:
        """Return a place for a new connection, after closing another's where all were taken."""
        slot = Slot(self, transport)
        self._strangers[slot] = None
        if len(self) > self._limit:
            longest, _ = self._strangers.popitem(last=False)
            longest.transport.abort()
            _log.warning("all %d connections taken: one without a key was closed", self._limit)
        self._most = max(self._most, len(self))
        return slot

    def vouch(self, slot: Slot) -> bool:
        """Keep `slot` from being closed; return False where too many are kept already."""
        if slot in self._strangers:
            if len(self._known) >= self._known_limit:
                return False
            del self._strangers[slot]
            self._known.add(slot)
        return True

    def doubt(self, slot: Slot) -> None:
        """Count `slot` as a stranger who is waited for from now on."""
        if slot in self._known:
            self._known.remove(slot)
            self._strangers[slot] = None
        elif slot in self._strangers:
            self._strangers.move_to_end(slot)

    def leave(self, slot: Slot) -> None:
        """Forget `slot`; after a rush, what it left in the heap is given back."""
        self._known.discard(slot)
        self._strangers.pop(slot, None)
        if self._most >= _RUSH and len(self) <= self._most // 4:
            self._most = len(self)
            asyncio.get_running_loop().run_in_executor(None, give_back_memory)


def find_room(wanted: int) -> int:
    """Return how many of the `wanted` connections the process may hold beside its files, after
    raising its limit of open files as far as that needs and is allowed.

    Raises:
        ConfigError: next to none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = wanted + RESERVED_DESCRIPTORS
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = min(wanted, soft - RESERVED_DESCRIPTORS)
    least = min(wanted, MIN_CONNECTIONS)
    if room < least:
        raise ConfigError(
            f"ulimit -n: {soft} open files are too few; at least {least + RESERVED_DESCRIPTORS} "
            "are needed"
        )
    return room
