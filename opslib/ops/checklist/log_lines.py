"""One error out of log lines: JSON of the service and of cloudflared, or text of either.

Known are JSON objects with a level and a message, cloudflared's `TIME ERR message`, Python's and
uvicorn's `ERROR` lines, with bars between the fields or without, and tracebacks, whose last line
says what happened.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from opslib.core.formatting import utc_now
from opslib.ops.checklist.log_wrapping import unwrap

MAX_MESSAGE = 2000
_WORDS = b'ERR CRITICAL FATAL FTL PNC Traceback "error "fatal "panic =error =fatal =panic'
MARKS = tuple(_WORDS.split())
_LEVELS = dict.fromkeys(("ERROR", "ERR"), "ERROR")
_LEVELS |= dict.fromkeys(("CRITICAL", "FATAL", "FTL", "PANIC", "PNC"), "CRITICAL")
_TIME = re.compile(r"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)")
_TEXT = re.compile(r"(.{0,120}?)\b(ERROR|ERR|CRITICAL|FATAL|FTL|PNC)\b[\]:]*(?:\s+[-|])?\s*(.*)")
_LOGFMT = re.compile(r"\blevel=\"?(error|fatal|panic)\b", re.IGNORECASE)
_FIELDS = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S+))')
_CALMER = re.compile(r"\b(?:INFO|INF|WARN|WARNING|WRN|DEBUG|DBG|NOTICE|TRACE)\b")
_CHAINED = ("Traceback (most recent call last)", "During handling of", "The above exception")
_TRACEBACK = _CHAINED[0]
_VARIABLE = re.compile(r"\w*\d\w*(?:[.:]\w*\d\w*)*")


@dataclass(frozen=True)
class LogError:
    """One error as a log has it: when (None: the line does not say), how bad, and what."""

    at: datetime | None
    level: str
    message: str


def next_mark(block: bytes, start: int, known: dict[bytes, int]) -> int:
    """Return where the next marking word stands in `block` from `start` on, or -1. `known`: where
    each word was found last; kept between calls on the same block."""
    for mark in MARKS:
        place = known.get(mark, 0)
        if 0 <= place < start or mark not in known:
            known[mark] = block.find(mark, start)
    return min((place for place in known.values() if place >= 0), default=-1)


def normalise_message(message: str) -> str:
    """Return the message with every word that holds a digit (ids, times, addresses, digests)
    as `#`, so that equal ones fall together."""
    return _VARIABLE.sub("#", message)


def read_time(text: Any) -> datetime | None:
    """Return the time that `text` begins with, aware; one without a zone is this host's own."""
    found = _TIME.match(text) if isinstance(text, str) else None
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(found.group(1).replace(",", "."))
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


class ErrorReader:
    """Takes the lines of one log in order and gives its errors; `open` while one may go on."""

    def __init__(self) -> None:
        self._pending: LogError | None = None
        self._in_trace = False

    @property
    def open(self) -> bool:
        """Whether the next line may belong to the error before it."""
        return self._pending is not None

    def feed(self, raw: bytes) -> Iterator[LogError]:
        """Take one line; yield the errors that it completes."""
        raw, at = unwrap(raw)
        if self._pending is not None and self._continues(raw):
            return
        yield from self.finish()
        if not any(mark in raw for mark in MARKS):
            return
        if not raw.startswith(b"{"):
            self._begin(raw.decode("utf-8", "replace").rstrip())
            self._pending = self._pending and _date(self._pending, at)
        elif found := _read_object(raw):
            yield _date(found, at)

    def finish(self) -> Iterator[LogError]:
        """Yield the error that waited for more lines, if any."""
        if self._pending is not None:
            yield self._pending
        self._pending, self._in_trace = None, False

    def _begin(self, line: str) -> None:
        if line.startswith(_TRACEBACK):
            self._pending, self._in_trace = LogError(None, "ERROR", ""), True
        elif not line[:1].isspace():
            self._pending = _read_text(line)

    def _continues(self, raw: bytes) -> bool:
        pending = self._pending
        line = raw.decode("utf-8", "replace").rstrip()
        if pending is None:
            return False
        if line.startswith(_CHAINED):
            self._in_trace = True
            return True
        if not self._in_trace:
            return not line
        if not line or line[0].isspace():
            return True
        if line.startswith("{") or _TIME.match(line):
            return False
        told = f"{pending.message}: {line}" if pending.message else line
        self._pending = LogError(pending.at, pending.level, told[:MAX_MESSAGE])
        self._in_trace = False
        return True


def _read_text(line: str) -> LogError | None:
    fields = _LOGFMT.search(line)
    if fields is not None:
        return _read_logfmt(line, _LEVELS[fields[1].upper()])
    found = _TEXT.match(line)
    if found is None or _CALMER.search(found.group(1)):
        return None
    message = found.group(3)[:MAX_MESSAGE]
    return LogError(read_time(line), _LEVELS[found.group(2)], message or line[:MAX_MESSAGE])


def _read_logfmt(line: str, level: str) -> LogError:
    said = {name: quoted or plain for name, quoted, plain in _FIELDS.findall(line)}
    parts = [said.get("msg") or said.get("message", ""), said.get("err") or said.get("error", "")]
    message = ": ".join(part for part in parts if part) or line
    return LogError(read_time(said.get("time") or said.get("ts")), level, message[:MAX_MESSAGE])


def _date(error: LogError, outer: str | None) -> LogError:
    """The error, with the time of what it came in where it says none itself."""
    if error.at is not None or outer is None:
        return error
    return replace(error, at=read_time(outer) or _read_syslog_time(outer))


def _read_syslog_time(text: str) -> datetime | None:
    """A time without a year: the latest that is not ahead, by this host's clock."""
    now = utc_now().astimezone()
    for year in (now.year, now.year - 1):
        try:
            found = datetime.strptime(f"{year} {text}", "%Y %b %d %H:%M:%S").astimezone()
        except ValueError:
            continue
        if found <= now + timedelta(days=1):
            return found.astimezone(UTC)
    return None


def _read_object(raw: bytes) -> LogError | None:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return _read_text(raw.decode("utf-8", "replace"))
    level = _LEVELS.get(str(content.get("level", content.get("levelname", ""))).upper())
    if level is None:
        return None
    said = (_first(content, ("message", "msg", "event")), content.get("error"))
    last = str(content.get("traceback") or "").strip().rpartition("\n")[2]
    message = ": ".join(str(part) for part in (*said, last) if part)
    at = read_time(_first(content, ("at_utc", "time", "timestamp", "ts", "asctime")))
    return LogError(at, level, message[:MAX_MESSAGE])


def _first(content: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((content[name] for name in names if content.get(name)), None)
