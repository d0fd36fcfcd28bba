"""How many connections are held, and which of them makes room for a new one.

Whoever connects is a stranger until a request of theirs has shown the key. Where all places are
taken, the stranger who was waited for longest is closed, so that a new one always gets a turn: its
request may be `/health`, or have the key. Those with the key are never closed for others; a share
of the places is kept from them, so that there is always somebody who can make room.
"""

import asyncio
import ctypes
import logging
import resource
from collections import OrderedDict
from contextlib import suppress
from typing import Any

from opslib.core.errors import ConfigError
from opslib.serving.logs import CAUSED_OUTSIDE

RESERVED_DESCRIPTORS = 256  # for files, the trial's pipes and what is accepted in one turn
MIN_CONNECTIONS = 32
_KEPT_FOR_STRANGERS = 8  # one of so many places
LINGER_S = 10.0
_RUSH = 64  # so many connections at once are no everyday thing

SLOT = "slot"
_log = logging.getLogger(CAUSED_OUTSIDE)


class Slot:
    """The place of one connection."""

    __slots__ = ("_places", "transport")

    def __init__(self, places: "Connections", transport: asyncio.Transport) -> None:
        self._places = places
        self.transport = transport

    def vouch(self) -> bool:
        """The request under way has the key: the slot is not closed for others; return False where
        too many are kept already."""
        places = self._places
        if self in places.strangers:
            if len(places.known) >= places.known_limit:
                return False
            del places.strangers[self]
            places.known.add(self)
        return True

    def doubt(self) -> None:
        """Another request begins: nobody knows yet whose it is, who is waited for from now on."""
        places = self._places
        if self in places.known:
            places.known.remove(self)
            places.strangers[self] = None
        elif self in places.strangers:
            places.strangers.move_to_end(self)

    def leave(self) -> None:
        """The connection has ended; after a rush, what it left in the heap is given back."""
        places = self._places
        places.known.discard(self)
        places.strangers.pop(self, None)
        if places.most >= _RUSH and len(places) <= places.most // 4:
            places.most = len(places)
            asyncio.get_running_loop().run_in_executor(None, give_back_memory)


class Connections:
    """The connections of one service: `limit` of them at most, used from its event loop alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.known_limit = limit - max(1, limit // _KEPT_FOR_STRANGERS)
        self.strangers: OrderedDict[Slot, None] = OrderedDict()  # waited for longest first
        self.known: set[Slot] = set()
        self.most = 0

    def __len__(self) -> int:
        return len(self.strangers) + len(self.known)

    def enter(self, transport: asyncio.Transport) -> Slot:
        """Return a place for a new connection, after closing another's where all were taken."""
        slot = Slot(self, transport)
        self.strangers[slot] = None
        if len(self) > self._limit:
            longest, _ = self.strangers.popitem(last=False)
            longest.transport.abort()
            _log.warning("all %d connections taken: one without a key was closed", self._limit)
        self.most = max(self.most, len(self))
        return slot


class JoinedWrites:
    """A transport that sends an answer's head and body in one packet, hence one system call, and
    drops what a client has not read `LINGER_S` after the connection was closed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        """Be the transport in everything else."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it until the body comes if it is an answer's head."""
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def flush(self) -> None:
        """Send what was kept."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Send what was kept and close."""
        self.flush()
        self._transport.close()
        if self._timer is None and self._transport.get_write_buffer_size():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LINGER_S, self._transport.abort)

    def lose(self) -> None:
        """Note that the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()


def find_room(wanted: int) -> int:
    """Return how many of the `wanted` connections the process may hold beside its files (next to
    none is a `ConfigError`), after raising its limit of open files as far as is needed and allowed.
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
        needed = least + RESERVED_DESCRIPTORS
        raise ConfigError(f"ulimit -n: {soft} open files are too few; at least {needed} are needed")
    return room


def give_back_memory() -> None:
    """Return the free pages of the heap to the system, where the C library can. Without it a
    service grows by a third over some tens of switches: each model is loaded into the holes that
    requests left between the weights of the last."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
