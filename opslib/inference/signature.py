"""A model's inputs, outputs and opset, read from the file itself without loading its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from opslib.core.errors import ModelError
from opslib.core.records import Part
from opslib.core.wire import Buffer, FileBytes, Wire, read_varint, walk_fields

# Element types of onnx.proto, as ONNX Runtime and numpy spell them.
_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    16: "bfloat16",
}  # fmt: skip


class TensorSummary(Part):
    """One input or output: name, element type and shape; a name or null where an axis is free."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Signature:
    """What a model takes and answers; `opset` is that of the default domain."""

    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    opset: int | None


@dataclass(frozen=True)
class LastOperator:
    """What computes a model's first output: its type as the graph names it (with its domain, where
    that is not ONNX's or ONNX Runtime's), and how many columns the output has, where that is fixed.

    `behind` are the types of what is added up or multiplied, where it is that.
    """

    kind: str
    columns: int | None
    behind: frozenset[str] = frozenset()


_OWN_DOMAINS = ("", "ai.onnx", "com.microsoft")
_COMBINES = ("Add", "Mul")
# Operators that pass values on as they are, or in another form.
_PASSES_ON = frozenset(
    {"Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear", "Reshape"}
    | {"Squeeze", "Unsqueeze"}
)


def read_signature(file: BinaryIO, name: str) -> Signature:
    """Return the signature of the ONNX model that `file` is open on.

    Raises:
        ModelError: it is no ONNX model; the message names it.
    """
    try:
        data = FileBytes(file)
        if not len(data):
            raise ValueError("empty file")
        return _read(data)
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(f"{name}: not an ONNX model, or damaged ({error})") from error


def read_last_operator(file: BinaryIO, name: str) -> LastOperator | None:
    """Return the last operator of the ONNX model that `file` is open on, those passed over that
    only pass values on; None where the first output is none of a node's.

    Raises:
        ModelError: see `read_signature`.
    """
    signature = read_signature(file, name)
    try:
        makers = _read_nodes(FileBytes(file))
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(f"{name}: not an ONNX model, or damaged ({error})") from error
    if not signature.outputs:
        return None
    made = _follow(makers, signature.outputs[0].name)
    if made is None:
        return None
    shape = signature.outputs[0].shape
    columns = shape[-1] if shape else None
    behind = _look_behind(makers, made, depth=4)
    return LastOperator(made.kind, columns if isinstance(columns, int) else None, behind)


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: tuple[str, ...]


def _read_nodes(data: Buffer) -> dict[str, _Node]:
    """The nodes of the graph, by each value that they compute."""
    makers: dict[str, _Node] = {}
    for number, begin, end in _messages(data, 0, len(data)):
        for field, first, last in _messages(data, begin, end) if number == 7 else ():
            if field == 1:
                kind = "".join(_texts(data, first, last, 4))
                domain = "".join(_texts(data, first, last, 7))
                kind = kind if domain in _OWN_DOMAINS else f"{domain}::{kind}"
                node = _Node(kind, tuple(_texts(data, first, last, 1)))
                makers.update(dict.fromkeys(_texts(data, first, last, 2), node))
    return makers


def _look_behind(makers: dict[str, _Node], made: _Node, depth: int) -> frozenset[str]:
    """The types of what is added up or multiplied in the end; none for another operator."""
    if made.kind not in _COMBINES or not depth:
        return frozenset()
    found: set[str] = set()
    for source in filter(None, (_follow(makers, one) for one in made.inputs)):
        found |= _look_behind(makers, source, depth - 1) or {source.kind}
    return frozenset(found)


def _follow(makers: dict[str, _Node], wanted: str) -> _Node | None:
    """The node that computes a value, those passed over that only pass it on."""
    for _ in makers:  # of a graph with a circle, which is none, the end is never found
        node = makers.get(wanted)
        if node is None or node.kind not in _PASSES_ON:
            return node
        wanted = node.inputs[0] if node.inputs else ""
    return None


def _read(data: Buffer) -> Signature:
    inputs: list[TensorSummary] = []
    outputs: list[TensorSummary] = []
    weights: set[str] = set()
    opset = None
    for number, begin, end in _messages(data, 0, len(data)):
        if number == 8:
            domain = "".join(_texts(data, begin, end, 1))
            opset = _number(data, begin, end, 2) if domain in ("", "ai.onnx") else opset
        elif number == 7:
            for field, first, last in _messages(data, begin, end):
                if field == 5:
                    weights.update(_texts(data, first, last, 8))
                elif field in (11, 12):
                    (inputs if field == 11 else outputs).append(_tensor(data, first, last))
    # Older exporters list the weights among the inputs too.
    given = tuple(tensor for tensor in inputs if tensor.name not in weights)
    return Signature(given, tuple(outputs), opset)


def _tensor(data: Buffer, begin: int, end: int) -> TensorSummary:
    name, dtype, shape = "", "unknown", list[int | str | None]()
    for number, first, last in _messages(data, begin, end):
        if number == 1:
            name = data[first:last].decode("utf-8", "replace")
        elif number == 2:
            for kind, start, stop in _messages(data, first, last):
                if kind == 1:
                    dtype = _TYPES.get(_number(data, start, stop, 1) or 0, "unknown")
                    shape = _shape(data, start, stop)
    return TensorSummary(name=name, dtype=dtype, shape=tuple(shape))


def _shape(data: Buffer, begin: int, end: int) -> list[int | str | None]:
    found: list[int | str | None] = []
    for number, first, last in _messages(data, begin, end):
        if number == 2:
            for dim, start, stop in _messages(data, first, last):
                if dim == 1:
                    names = [text for text in _texts(data, start, stop, 2) if text]
                    found.append(names[0] if names else _number(data, start, stop, 1))
    return found


def _messages(data: Buffer, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    for number, wire, start, stop in walk_fields(data, begin, end):
        if wire == Wire.BYTES:
            yield number, start, stop


def _texts(data: Buffer, begin: int, end: int, wanted: int) -> Iterator[str]:
    for number, start, stop in _messages(data, begin, end):
        if number == wanted:
            yield data[start:stop].decode("utf-8", "replace")


def _number(data: Buffer, begin: int, end: int, wanted: int) -> int | None:
    found = None
    for number, wire, start, _ in walk_fields(data, begin, end):
        if number == wanted and wire == Wire.VARINT:
            found = read_varint(data, start)[0]
    return found
