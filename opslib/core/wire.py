"""The protobuf wire format, walked without a schema: enough to find a field in a large file."""

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import BinaryIO, overload

_WINDOW_BYTES = 1 << 16


class FileBytes:
    """The bytes of an open file, read where they are asked for.

    Not a mapping: where somebody truncates the file meanwhile, reading raises, and the process
    lives.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self._size = os.fstat(self._descriptor).st_size
        self._start, self._window = 0, b""

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, where: int) -> int: ...

    @overload
    def __getitem__(self, where: slice) -> bytes: ...

    def __getitem__(self, where: int | slice) -> int | bytes:
        if isinstance(where, slice):
            start, stop, _ = where.indices(self._size)
            found = self._look(start, stop - start)
            if len(found) < stop - start:
                raise IndexError("the file has become shorter")
            return found
        offset = where - self._start
        if 0 <= offset < len(self._window):
            return self._window[offset]
        return self._look(where, 1)[0]

    def _look(self, start: int, count: int) -> bytes:
        offset = start - self._start
        if offset < 0 or offset + count > len(self._window):
            self._window = os.pread(self._descriptor, max(count, _WINDOW_BYTES), start)
            self._start, offset = start, 0
        return self._window[offset : offset + count]


Buffer = bytes | FileBytes
Span = tuple[int, int]


class Wire(IntEnum):
    """How a field's value is laid out."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


_FIXED_BYTES = {Wire.FIXED64: 8, Wire.FIXED32: 4}


def walk_fields(data: Buffer, position: int, end: int) -> Iterator[tuple[int, Wire, int, int]]:
    """Yield (field number, layout, begin, end) of each field of the message in `position..end`.
    Raises `ValueError` where the bytes are no message, or end in the middle of a field;
    `IndexError` where they end in the middle of a number."""
    while position < end:
        key, position = read_varint(data, position)
        number, wire = key >> 3, key & 7
        begin = position
        if wire == Wire.VARINT:
            _, position = read_varint(data, position)
        elif wire in _FIXED_BYTES:
            position += _FIXED_BYTES[Wire(wire)]
        elif wire == Wire.BYTES:
            length, begin = read_varint(data, position)
            position = begin + length
        else:
            raise ValueError("its bytes are no protobuf message")
        if position > end:
            raise ValueError("it ends in the middle of a field")
        yield number, Wire(wire), begin, position


def read_varint(data: Buffer, position: int) -> tuple[int, int]:
    """Return the unsigned number at `position` and the position behind it. Raises `ValueError`
    where it is longer than a number can be; `IndexError` where the bytes end within it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("its bytes are no protobuf message")


def leave_out(data: Buffer, start: int, end: int, cuts: Sequence[Span]) -> list[Span | bytes]:
    """Return what the message in `start..end` becomes without the fields at `cuts`, each from its
    tag to its end, in order: spans of `data`, and new bytes where a message around one says how
    long it is. Raises `ValueError`, `IndexError`: see `walk_fields`."""
    pieces: list[Span | bytes] = []
    kept = tag = start
    for number, wire, begin, stop in walk_fields(data, start, end):
        inside = cuts[bisect_left(cuts, (tag,)) : bisect_left(cuts, (stop,))]
        if inside:
            pieces.append((kept, tag))
            kept = stop
            if inside[0] != (tag, stop):
                inner = leave_out(data, begin, stop, inside)
                length = sum(map(_measure, inner))
                pieces += [_write_varint(number << 3 | wire) + _write_varint(length), *inner]
        tag = stop
    return [*pieces, (kept, end)]


def _measure(piece: Span | bytes) -> int:
    """Return how many bytes a piece of `leave_out` is."""
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]


def _write_varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
