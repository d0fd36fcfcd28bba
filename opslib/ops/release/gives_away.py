"""What the texts of an ONNX file tell of where it was made: paths, user names, the host's name.

Exporters leave stack traces in the metadata of nodes, training tools their arguments in that of the
model. Weights are passed over, in the file or beside it: how many nodes there are counts, not how
many bytes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Literal

from opslib.core.errors import ModelError
from opslib.core.formatting import plural, shorten
from opslib.core.host import read_host_name
from opslib.core.wire import Buffer, FileBytes, Span, Wire, walk_fields

Place = Literal["metadata", "names"]
# Metadata may be left out and the model answers alike; names, attributes and the like may not.
_PLACES: dict[str, Place] = {"text": "metadata", "entry": "metadata", "name": "names"}
# Field numbers of onnx.proto: a message that holds texts, or a text itself.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {
        **{2: "name", 3: "name", 4: "name", 6: "text", 7: "graph", 14: "entry"},
        **{20: "training", 25: "function"},
    },
    "training": {1: "graph", 2: "graph"},
    "graph": {
        **{1: "node", 2: "name", 5: "tensor", 10: "text", 11: "value", 12: "value"},
        **{13: "value", 15: "sparse", 16: "entry"},
    },
    "function": {
        **{1: "name", 4: "name", 5: "name", 7: "node", 8: "text", 10: "name"},
        **{11: "attribute", 12: "value", 14: "entry"},
    },
    "node": {
        **{1: "name", 2: "name", 3: "name", 4: "name", 5: "attribute", 6: "text"},
        **{7: "name", 9: "entry"},
    },
    "attribute": {
        **{1: "name", 4: "name", 5: "tensor", 6: "graph", 9: "name", 10: "tensor"},
        **{11: "graph", 13: "text", 22: "sparse", 23: "sparse"},
    },
    "value": {1: "name", 3: "text", 4: "entry"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {6: "name", 8: "name", 12: "text", 16: "entry"},
}
_SMALL_BYTES = 1 << 16  # a message that is read at once; others are walked from field to field
_PIECE_BYTES, _OVERLAP_BYTES = 1 << 20, 1 << 10  # of a text, which may be as large as a file
_PART = r"""[^\s/\\"'<>|:,;()\[\]]+"""
# What older exporters call a node, `/stem/conv/Conv`, is no path: a known folder must come first,
# or a known kind of file last.
_PATH = re.compile(
    rf"""(?<![\w./\\~-])(?:file://)?(?:
          /(?:home|Users|mnt|media|opt|private|srv|tmp|usr|var|Volumes)(?:/{_PART})+
        | (?:/{_PART})*/{_PART}\.
            (?:cc|cpp|cu|csv|ipynb|jpe?g|json|npy|npz|onnx|png|pth?|pt2|pyc?|pyx|so|txt|ya?ml)
            (?![\w/\\])
        | [A-Za-z]:[\\/]+{_PART}[\\/]+{_PART}(?:[\\/]+{_PART})*
        | \\\\{_PART}(?:\\+{_PART})+
        | (?<=File\ ")[^"<\n]+(?=",\ line\ \d)
    )""",
    re.VERBOSE,
)
_USER = re.compile(r"""(?:^(?:file://)?/home/|[/\\]Users[/\\]+)([^/\\"'\n]+)""")


@dataclass(frozen=True)
class Telling:
    """A text that gives something away: a path (of a stack trace, a relative one too), a user's
    home in it, this host's name. `span` is its field, from tag to end; `metadata` can be left out.
    """

    place: Place
    span: Span
    path: str | None
    user: str | None
    host: str | None


def find_tellings(file: BinaryIO, name: str) -> tuple[Telling, ...]:
    """Return the texts that give something away of the ONNX model that `file` is open on, in the
    order of the file. Raises ModelError: by this `name`, it is none, or damaged."""
    try:
        data = FileBytes(file)
        return tuple(_judge(data, _compile_host(), 0, len(data), "model"))
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(f"{name}: not an ONNX model, or damaged ({error})") from error


def describe_tellings(member: str, found: Iterable[Telling]) -> tuple[str, ...]:
    """Return what a model gives away, a line for what can be left out and one for what cannot."""
    lines = []
    for place in ("metadata", "names"):
        here = [one for one in found if one.place == place]
        path = next((one.path for one in here if one.path), None)
        users = sorted({one.user for one in here if one.user})
        hosts = sorted({one.host for one in here if one.host})
        told = [f"paths such as {shorten(path, 120)}"] if path else []
        told += [f"the user {user}" for user in users] + [f"the host {host}" for host in hosts]
        if here and place == "metadata":
            where = f"in {plural(len(here), 'entry', 'entries')} of its metadata"
            remedy = "--strip-metadata releases a copy without"
            lines.append(f"{member} gives away {', '.join(told)} {where}; {remedy}")
        elif here:
            count = plural(len(here), "name or value", "names or values")
            where = f"in {count}, which cannot be taken out"
            lines.append(f"{member} gives away {', '.join(told)} {where}")
    return tuple(lines)


def _compile_host() -> re.Pattern[str] | None:
    name = read_host_name()
    bare = name.partition(".")[0] if name else ""
    return re.compile(rf"(?<![\w-]){re.escape(bare)}(?![\w-])", re.I) if len(bare) > 3 else None


def _judge(
    data: Buffer, host: re.Pattern[str] | None, start: int, end: int, message: str, base: int = 0
) -> Iterator[Telling]:
    """Judge the texts of a message; `base` is where in the file `data` begins."""
    if isinstance(data, FileBytes) and end - start <= _SMALL_BYTES:
        data, start, end, base = data[start:end], 0, end - start, start
    kinds, tag = _FIELDS[message], start
    for number, wire, begin, stop in walk_fields(data, start, end):
        kind = kinds.get(number) if wire == Wire.BYTES else None
        if kind is not None and kind not in _PLACES:
            yield from _judge(data, host, begin, stop, kind, base)
        elif kind is not None:
            place, span = _PLACES[kind], (base + tag, base + stop)
            texts = _read_texts(data, begin, stop, kind)
            told = (_judge_text(one, host, place, span) for one in texts)
            yield from islice(filter(None, told), 1)
        tag = stop


def _read_texts(data: Buffer, begin: int, stop: int, kind: str) -> Iterator[str]:
    """A text, or the key and the value of an entry; a very long one in pieces that overlap."""
    if kind == "entry":
        for _, wire, first, last in walk_fields(data, begin, stop):
            if wire == Wire.BYTES:
                yield from _read_texts(data, first, last, "text")
        return
    for at in range(begin, stop, _PIECE_BYTES):
        piece = data[at : min(stop, at + _PIECE_BYTES + _OVERLAP_BYTES)]
        yield piece.decode("utf-8", "replace")


def _judge_text(
    text: str, host: re.Pattern[str] | None, place: Place, span: Span
) -> Telling | None:
    paths = [found[0] for found in _PATH.finditer(text)] if "/" in text or "\\" in text else []
    named = host.search(text) if host is not None else None
    if not paths and named is None:
        return None
    user = next((found[1] for found in map(_USER.search, paths) if found), None)
    # The first line of a stack trace is the house's own, those after it are a library's.
    return Telling(place, span, paths[0] if paths else None, user, named[0] if named else None)
