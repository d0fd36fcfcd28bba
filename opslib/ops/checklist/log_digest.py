"""The errors of logs of any size, grouped by what they say, in memory that does not grow.

A log is read in blocks; one without a word that marks an error is passed over unread. Lines,
messages and the number of groups are bounded.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from opslib.core.language import tr
from opslib.core.secrets import mask
from opslib.ops.checklist.items import LogGroup
from opslib.ops.checklist.log_lines import ErrorReader, LogError, next_mark, normalise_message
from opslib.ops.checklist.log_wrapping import decode_blocks, is_understood, unwrap

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 16
MAX_GROUPS = 500
SAMPLED = 50  # lines of each block that are looked at to know the log's form
MAX_SHOWN = 300
OTHERS = "(other messages)"


@dataclass
class _Tally:
    example: str
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, error: LogError) -> None:
        self.count += 1
        if error.at is None:
            return
        self.first = error.at if self.first is None else min(self.first, error.at)
        if self.last is None or error.at >= self.last:
            self.last, self.example = error.at, error.message


@dataclass
class LogDigest:
    """The errors of one log and its archives since a moment. `problems` says which files could not
    be read to their end, and why; `puzzling` which have not one line in a form that is known."""

    source: str
    since: datetime
    read_bytes: int = 0
    files: int = 0
    undated: int = 0
    problems: list[str] = field(default_factory=list)
    puzzling: list[str] = field(default_factory=list)
    _tallies: dict[tuple[str, str], _Tally] = field(default_factory=dict)

    def add_file(self, path: Path) -> None:
        """Read one file, compressed where its name ends in `.gz`."""
        self.files += 1
        try:
            with _open(path) as file:
                for error in self._read_errors(file, path.name):
                    self._add(error)
        except FileNotFoundError:
            return  # rotated away in this moment: its lines are in the archive
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.problems.append(
                tr("{name}: not read to its end: {reason}", name=path.name, reason=reason)
            )

    def groups(self, secrets: Iterable[str] = (), ignore: Iterable[str] = ()) -> list[LogGroup]:
        """Return the groups, the most frequent first, secrets masked. `ignore`: texts; a group
        whose example contains one is marked as ignored."""
        secrets, ignore = tuple(secrets), tuple(ignore)
        found = [
            LogGroup(
                source=self.source,
                level=level,
                message=clean_line(mask(message, secrets)),
                example=clean_line(mask(tally.example, secrets)),
                count=tally.count,
                first_utc=_text(tally.first),
                last_utc=_text(tally.last),
                ignored=any(text in tally.example for text in ignore),
            )
            for (level, message), tally in self._tallies.items()
        ]
        return sorted(found, key=lambda group: (-group.count, group.message))

    def _add(self, error: LogError) -> None:
        if error.at is None:
            self.undated += 1
        elif error.at < self.since:
            return
        key = (error.level, normalise_message(error.message))
        if key not in self._tallies and len(self._tallies) >= MAX_GROUPS:
            key = ("ERROR", OTHERS)
        self._tallies.setdefault(key, _Tally(error.message)).add(error)

    def _read_errors(self, file: BinaryIO, name: str) -> Iterator[LogError]:
        reader, understood, empty = ErrorReader(), False, True
        for block in self._read_blocks(file):
            lines = block[:MAX_LINE_BYTES].split(b"\n", SAMPLED)[:SAMPLED]
            understood = understood or any(is_understood(unwrap(line)[0]) for line in lines)
            empty = empty and not block.strip()
            start, known = 0, dict[bytes, int]()
            while start < len(block):
                if not reader.open:
                    mark = next_mark(block, start, known)
                    if mark < 0:
                        break
                    start = block.rfind(b"\n", 0, mark) + 1
                end = block.find(b"\n", start)
                end = len(block) if end < 0 else end
                yield from reader.feed(block[start:end])
                start = end + 1
        yield from reader.finish()
        if not understood and not empty:
            self.puzzling.append(name)

    def _read_blocks(self, file: BinaryIO) -> Iterator[bytes]:
        """Yield the file in blocks that end with a line; of an endless line, its beginning."""
        rest = b""
        for chunk in decode_blocks(self._read_chunks(file)):
            block = rest + chunk
            cut = block.rfind(b"\n") + 1
            rest = block[cut:][:MAX_LINE_BYTES]
            if cut:
                yield block[:cut]
        if rest:
            yield rest

    def _read_chunks(self, file: BinaryIO) -> Iterator[bytes]:
        while chunk := file.read(BLOCK_BYTES):
            self.read_bytes += len(chunk)
            yield chunk


def clean_line(text: str) -> str:
    """Return `text` on one line of bounded length, without what would steer a terminal."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + "…"


def _open(path: Path) -> BinaryIO:
    if path.suffix != ".gz":
        return path.open("rb", buffering=0)
    from isal import igzip

    opened: Any = igzip.open(path, "rb")  # type: ignore[no-untyped-call]
    return cast(BinaryIO, opened)


def _text(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None
