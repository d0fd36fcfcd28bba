"""A log that a fault of each request cannot fill."""

from __future__ import annotations

import logging
import time

EVERY_S = 20.0


class Rarely(logging.Filter):
    """Lets one record pass in `EVERY_S`; the next one says how many were held back before it."""

    def __init__(self) -> None:
        super().__init__()
        self._next_s = 0.0
        self._held = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written."""
        now = time.monotonic()
        if now < self._next_s:
            self._held += 1
            return False
        if self._held:
            record.msg = f"{record.getMessage()} ({self._held} more since the last line)"
            record.args = None
        self._next_s, self._held = now + EVERY_S, 0
        return True
