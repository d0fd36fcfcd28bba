"""What a log's lines come wrapped in: another encoding, colours, docker's JSON, syslog's prefix."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 512
_COLOUR = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
_DOCKER = re.compile(rb'\{\s*"log"\s*:')
_SYSLOG = re.compile(
    rb"(?:<\d{1,3}>)?(?:\d )?(?P<at>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) "
    rb"(?!(?:TRACE|DEBUG|INFO|INF|NOTICE|WARN|WARNING|WRN|ERROR|ERR|CRITICAL|FATAL|FTL|PANIC|PNC) )"
    rb"[\w.:-]+ [\w./-]+(?:\[\d+\])?: ?"
)
_KNOWN = re.compile(
    rb"\b(?:TRACE|DEBUG|DBG|INFO|INF|NOTICE|WARN|WARNING|WRN|ERROR|ERR|CRITICAL|FATAL|FTL|PANIC|PNC)\b"
    rb"|\blevel=|\"level(?:name)?\"|Traceback \(most recent call last\)|\"[A-Z]+ \S+ HTTP/"
)


def decode_blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a file as UTF-8: UTF-16 is known by its mark, or, in a part that begins
    later, by its empty bytes."""
    decoder = None
    for number, chunk in enumerate(chunks):
        if number == 0:
            decoder = _find_decoder(chunk)
        yield chunk if decoder is None else decoder.decode(chunk).encode("utf-8", "replace")


def unwrap(line: bytes) -> tuple[bytes, str | None]:
    """Return a line without what it comes in, and the time that this says."""
    line = _COLOUR.sub(b"", line) if b"\x1b" in line else line
    if _DOCKER.match(line):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            return line, None
        said = content.get("log")
        if isinstance(said, str) and "level" not in content:
            inner, at = unwrap(said.rstrip("\n").encode("utf-8", "replace"))
            return inner, at or str(content.get("time", ""))
    found = _SYSLOG.match(line)
    if found is not None:
        return line[found.end() :], found["at"].decode("ascii", "replace")
    return line, None


def is_understood(line: bytes) -> bool:
    """Return whether a line is in a form of which it is known how it would say an error."""
    return _KNOWN.search(line) is not None


def _find_decoder(begin: bytes) -> codecs.IncrementalDecoder | None:
    for mark, name in _ENCODINGS:
        if begin.startswith(mark):
            return codecs.getincrementaldecoder(name)("replace")
    sample = begin[:_SAMPLE]
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        empty, full = sample[first::2].count(0), sample[1 - first :: 2].count(0)
        if len(sample) > 1 and empty > len(sample) // 3 and full < len(sample) // 8:
            return codecs.getincrementaldecoder(name)("replace")
    return None
