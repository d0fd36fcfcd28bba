"""The service's logs as JSON lines: `api.err` for events, `api.out` for requests.

Each file is opened anew when it was renamed, so that rotating it loses no line. No secret is ever
written. Of what strangers cause the first few of each kind are written and the rest only counted:
it must not fill a disk.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Hashable, Iterable
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from opslib.core.errors import storage_errors
from opslib.core.ownership import open_to_append
from opslib.core.secrets import mask

ACCESS_LOG = "api.out"
ERROR_LOG = "api.err"
EVENT_LOGGER = "opslib.serving"
CAUSED_OUTSIDE = f"{EVENT_LOGGER}.outside"  # what any request can cause
FEW = 5
PERIOD_S = 60.0
_OUTSIDE = (CAUSED_OUTSIDE, "uvicorn.error", "asyncio", "py.warnings")


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


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, message or fields, traceback; secrets masked."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        moment = datetime.fromtimestamp(record.created, tz=UTC)
        line: dict[str, Any] = {"at_utc": moment.isoformat(timespec="milliseconds")}
        fields = getattr(record, "fields", None)
        line |= {"level": record.levelname, "message": record.getMessage(), **(fields or {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return mask(json.dumps(line, ensure_ascii=False, default=str), self._secrets)


class PlainLines(logging.Formatter):
    """Level and message for a person at a terminal; secrets masked."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(levelname)s: %(message)s")
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, or more where there is a traceback."""
        return mask(super().format(record), self._secrets)


class SparingFilter(logging.Filter):
    """Lets the first few records of each place in the code pass until the rest is summed up."""

    def __init__(self) -> None:
        super().__init__()
        self._sparing = Sparing()
        self._last: dict[object, logging.LogRecord] = {}
        self._lock = threading.RLock()  # entered anew where what is collected in it warns

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written; the last that was not is remembered."""
        place = (record.pathname, record.lineno)
        with self._lock:
            if self._sparing.take(place):
                return True
            self._last[place] = record
        return False

    def sum_up(self) -> None:
        """Write how many records were not written, a line for each place in the code."""
        with self._lock:
            counts = self._sparing.drain()
            last_of, self._last = self._last, {}
        for place, count in counts.items():
            last = last_of[place]
            said = f"{count} more like it: " + last.getMessage().partition("\n")[0]
            facts = {"name": last.name, "levelno": last.levelno, "levelname": last.levelname}
            logging.getLogger(last.name).callHandlers(logging.makeLogRecord({**facts, "msg": said}))


class AccessLog:
    """Appends lines to `path`; a rotation that renames the file loses none of them.

    It is called for each request on the event loop, which is why it does without `logging`.
    Secrets are masked.
    """

    def __init__(self, path: Path, secrets: Iterable[str]) -> None:
        self._path = path
        self._secrets = tuple(secrets)
        self._sparing = Sparing()
        with storage_errors(f"write {path}"):
            self._open()

    def write(self, fields: dict[str, Any]) -> None:
        """Append `fields` and the time; a full disk loses the line, never the request."""
        at_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at_utc": at_utc, **fields}, ensure_ascii=False)
        data = (mask(line, self._secrets) + "\n").encode("utf-8", "backslashreplace")
        try:
            if self._was_renamed():
                before = self._descriptor
                self._open()
                os.close(before)
            os.write(self._descriptor, data)
        except OSError:
            return

    def write_sparingly(self, status: int, fields: dict[str, Any]) -> None:
        """Append `fields` if they are among the first few of this status; else count them."""
        if self._sparing.take(status):
            self.write(fields)

    def sum_up(self) -> None:
        """Append how many requests had no line, for each status."""
        for status, count in self._sparing.drain().items():
            said = f"{count} more requests without a key"
            self.write({"message": said, "status": status, "more": count})

    def close(self) -> None:
        """Sum up and close the file."""
        self.sum_up()
        os.close(self._descriptor)

    def _open(self) -> None:
        descriptor = open_to_append(self._path)
        try:
            self._opened = os.fstat(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _was_renamed(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), self._opened)
        except FileNotFoundError:
            return True


class EventFile(WatchedFileHandler):
    """Appends to a file that is opened anew after a rename; where that fails the record is lost,
    and whoever logged it goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            super().emit(record)
        except OSError:  # the look whether it was renamed is not guarded by the handler itself
            self.handleError(record)


_sparing = SparingFilter()
sum_up_events = _sparing.sum_up


def open_logs(folder: Path, level: str, secrets: Iterable[str], *, console: bool) -> None:
    """Send the service's log records to `folder`/`api.err`, and to stderr if asked; a folder that
    cannot be written is a `StorageError`."""
    secrets = tuple(secrets)
    with storage_errors(f"write logs into {folder}"):
        os.close(open_to_append(folder / ERROR_LOG))
        events = EventFile(folder / ERROR_LOG, encoding="utf-8", errors="backslashreplace")
    events.setFormatter(JsonLines(secrets))
    handlers: list[logging.Handler] = [events]
    if console:
        screen = logging.StreamHandler(sys.stderr)
        screen.setFormatter(PlainLines(secrets))
        handlers.append(screen)
    for logger in map(logging.getLogger, (EVENT_LOGGER, *_OUTSIDE)):
        for old in logger.handlers:
            old.close()
        logger.handlers, logger.propagate = list(handlers), False
        logger.setLevel(level)
    for name in _OUTSIDE:
        logging.getLogger(name).addFilter(_sparing)
    logging.captureWarnings(True)
    logging.raiseExceptions = False
