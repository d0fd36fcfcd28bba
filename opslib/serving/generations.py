"""The models in memory: one is current, every request leases it, an old one is drained and kept.

A generation is one switch: its number grows by one each time, also when an old model comes back.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from opslib.serving.connections import give_back_memory
from opslib.serving.failures import RefusalError
from opslib.serving.loaded import LoadedModel
from opslib.serving.logs import EVENT_LOGGER

_log = logging.getLogger(f"{EVENT_LOGGER}.generations")


@dataclass(frozen=True)
class Generation:
    """A model and the number of the switch that brought it into service."""

    number: int
    model: LoadedModel


@dataclass
class _Slot:
    model: LoadedModel
    leases: int = 0
    retired: bool = False


@dataclass
class Generations:
    """The current generation and the resident models, safe to use from any thread.

    `capacity` models stay loaded, the current one included; with less than `min_free_bytes` of
    memory after a switch, the old one is not kept. `last_number` is that of the last generation
    before.
    """

    capacity: int = 2
    last_number: int = 0
    min_free_bytes: int = 0
    _slots: dict[str, _Slot] = field(default_factory=dict)
    _current: Generation | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def current(self) -> Generation | None:
        """The generation that the next request gets, or None before the first switch."""
        return self._current

    def require(self) -> Generation:
        """Return the current generation, or refuse where no model is loaded."""
        current = self._current
        if current is None:
            problem = "no model is loaded; see the service's api.err, or switch one in with /reload"
            raise RefusalError(503, problem, code="no_model")
        return current

    @contextmanager
    def lease(self) -> Iterator[Generation]:
        """Hold the current generation for the block; until then it is not freed."""
        with self._lock:
            generation = self.require()
            slot = self._slots[generation.model.sha256]
            slot.leases += 1
        try:
            yield generation
        finally:
            with self._lock:
                slot.leases -= 1
                free = slot.retired and slot.leases == 0
            if free:
                slot.model.close()
                give_back_memory()

    def switch(self, model: LoadedModel) -> Generation:
        """Make `model` current in one step and return its generation; requests under way finish on
        the model they began with."""
        with self._lock:
            self.last_number += 1
            slot = self._slots.pop(model.sha256, None)
            dropped = []
            if slot is not None and slot.model is not model:
                dropped = _retire_slot(slot)
                slot = None
            self._slots[model.sha256] = slot or _Slot(model)
            generation = self._current = Generation(self.last_number, model)
            dropped += self._retire_oldest()
        for one in dropped:
            one.close()
        if dropped:
            give_back_memory()
        return generation

    def find_resident(self, path: Path) -> LoadedModel | None:
        """Return the model loaded from `path` if its files are still the ones that were loaded."""
        with self._lock:
            found = [slot.model for slot in self._slots.values() if slot.model.path == path]
        return next((model for model in found if model.is_unchanged()), None)

    def close(self) -> None:
        """Free every model that no request holds."""
        with self._lock:
            self._current = None
            free = [model for slot in self._slots.values() for model in _retire_slot(slot)]
            self._slots = {}
        for model in free:
            model.close()

    def _retire_oldest(self) -> list[LoadedModel]:
        """Take the oldest models out of residence; return those that can be freed now."""
        capacity = self.capacity
        if len(self._slots) > 1 and _free_memory_bytes() < self.min_free_bytes:
            capacity = 1
            _log.warning("little free memory: the previous model is not kept for a rollback")
        oldest = list(self._slots)[: max(0, len(self._slots) - capacity)]
        return [model for digest in oldest for model in _retire_slot(self._slots.pop(digest))]


def _retire_slot(slot: _Slot) -> list[LoadedModel]:
    """Mark a slot for freeing; return its model where no request holds it."""
    slot.retired = True
    return [] if slot.leases else [slot.model]


def _free_memory_bytes() -> int:
    """How many bytes new allocations can have without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
