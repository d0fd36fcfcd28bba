"""What a log's lines come wrapped in: another encoding, colours, docker's JSON, syslog's prefix."""

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from collections.abc import Iterable, Iterator
from itertools import chain

_MARKS = {"utf-8": BOM_UTF8, "utf-16-le": BOM_UTF16_LE, "utf-16-be": BOM_UTF16_BE}
_SAMPLE = 512
_PROOF = 16  # bytes by which another encoding is known
_KEPT = 24  # of a block, in which one might begin
# A line end of the encoding, and behind it plain letters of another.
_PLAIN = rb"(?=(?:\xef\xbb\xbf)?[\t -~]{16})"
_CHANGE = {
    "utf-8": re.compile(rb"[\r\n](?=\xff\xfe|\xfe\xff|(?:[\t -~]\0){8}|(?:\0[\t -~]){8})"),
    "utf-16-le": re.compile(rb"[\r\n]\0" + _PLAIN),
    "utf-16-be": re.compile(rb"\0[\r\n]" + _PLAIN),
}
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
    """Yield the chunks of a file as UTF-8 with line feeds alone. UTF-16 is known by its mark, or,
    in a part that begins later, by its empty bytes. Behind a line end another program may have gone
    on in another encoding."""
    kept = b""
    for chunk in _decode(chunks):
        block = kept + chunk
        kept = b"\r" if block.endswith(b"\r") else b""  # a line feed may follow
        block = block[: len(block) - len(kept)]
        yield block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
    if kept:
        yield b"\n"


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


def _decode(chunks: Iterable[bytes]) -> Iterator[bytes]:
    reader, rest = None, b""
    for chunk in chain(chunks, [None]):
        block = rest + (chunk or b"")
        if chunk is not None and len(block) <= _KEPT:
            rest = block
            continue
        if reader is None:
            reader, block = _begin(block, _SAMPLE)
        while (end := reader.find_end(block)) is not None:
            yield reader.read(block[:end], final=True)
            reader, block = _begin(block[end:], _PROOF)
        whole = len(block) if chunk is None else len(block) - _KEPT
        yield reader.read(block[:whole])
        rest = block[whole:]


class _Reader:
    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        made = getincrementaldecoder(encoding)
        self._decoder = None if encoding == "utf-8" else made("replace")

    def find_end(self, block: bytes) -> int | None:
        """Return where another encoding begins, if it does."""
        if self._decoder is None and b"\0" not in block:
            return None
        found = _CHANGE[self._encoding].search(block)
        return found.end() if found else None

    def read(self, block: bytes, *, final: bool = False) -> bytes:
        """Return a block as UTF-8."""
        if self._decoder is None:
            return block
        return self._decoder.decode(block, final).encode("utf-8", "replace")


def _begin(block: bytes, sample: int) -> tuple[_Reader, bytes]:
    for name, mark in _MARKS.items():
        if block.startswith(mark):
            return _Reader(name), block[len(mark) :]
    begin = block[:sample]
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        empty, full = begin[first::2].count(0), begin[1 - first :: 2].count(0)
        if len(begin) > 1 and empty > len(begin) // 3 and full < len(begin) // 8:
            return _Reader(name), block
    return _Reader("utf-8"), block
