"""A model's inputs, outputs, opset and operators, read from the file without its weights."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from opslib.core.errors import ModelError
from opslib.core.records import Part
from opslib.core.wire import Buffer, FileBytes, Span, Wire, read_varint, walk_fields

T = TypeVar("T")
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
    """Return the signature of the ONNX model that `file` is open on; if it is none, a `ModelError`
    by this `name`."""
    return _read(_read_signature, file, name)


def read_last_operator(file: BinaryIO, name: str) -> LastOperator | None:
    """Return the last operator of the ONNX model that `file` is open on, those passed over that
    only pass values on; None where the first output is none of a node's."""
    return _read(_read_last_operator, file, name)


def read_operators(file: BinaryIO, name: str) -> frozenset[str]:
    """Return the types of all nodes of the ONNX model that `file` is open on, those of branches and
    of functions too."""
    return _read(lambda data: frozenset(_walk_model(data)), file, name)


def peek(read: Callable[[BinaryIO, str], T], path: Path) -> T | None:
    """Return what one of these reads of the file at `path`, or None where it cannot be read or is
    no model: loading it says why."""
    try:
        with path.open("rb") as file:
            return read(file, str(path))
    except (ModelError, OSError):
        return None


def _read(read: Callable[[Buffer], T], file: BinaryIO, name: str) -> T:
    try:
        data = FileBytes(file)
        if not len(data):
            raise ValueError("empty file")
        return read(data)
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(f"{name}: not an ONNX model, or damaged ({error})") from error


def _read_signature(data: Buffer) -> Signature:
    model = _fields(data, (0, len(data)))
    opset = None
    for one in model[8]:
        if _text(data, _fields(data, one)[1]) in ("", "ai.onnx"):
            opset = _number(data, one, 2)
    inputs, outputs, weights = list[TensorSummary](), list[TensorSummary](), set[str]()
    for graph in (_fields(data, one) for one in model[7]):
        weights.update(_text(data, _fields(data, one)[8]) for one in graph[5])
        inputs += [_read_tensor(data, one) for one in graph[11]]
        outputs += [_read_tensor(data, one) for one in graph[12]]
    # Older exporters list the weights among the inputs too.
    given = tuple(tensor for tensor in inputs if tensor.name not in weights)
    return Signature(given, tuple(outputs), opset)


def _read_tensor(data: Buffer, span: Span) -> TensorSummary:
    parts = _fields(data, span)
    dtype, shape = "unknown", list[int | str | None]()
    for one in (tensor for kind in parts[2] for tensor in _fields(data, kind)[1]):
        dtype = _TYPES.get(_number(data, one, 1) or 0, "unknown")
        axes = [axis for part in _fields(data, one)[2] for axis in _fields(data, part)[1]]
        shape = [_text(data, _fields(data, one)[2]) or _number(data, one, 1) for one in axes]
    return TensorSummary(name=_text(data, parts[1]), dtype=dtype, shape=tuple(shape))


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: tuple[str, ...]


def _read_last_operator(data: Buffer) -> LastOperator | None:
    outputs = _read_signature(data).outputs
    makers = _read_nodes(data)
    made = _follow(makers, outputs[0].name) if outputs else None
    if made is None:
        return None
    columns = outputs[0].shape[-1] if outputs[0].shape else None
    behind = _look_behind(makers, made, depth=4)
    return LastOperator(made.kind, columns if isinstance(columns, int) else None, behind)


def _read_nodes(data: Buffer) -> dict[str, _Node]:
    """The nodes of the graph, by each value that they compute."""
    makers: dict[str, _Node] = {}
    for graph in _fields(data, (0, len(data)))[7]:
        for parts in (_fields(data, node) for node in _fields(data, graph)[1]):
            kind, domain = _text(data, parts[4]), _text(data, parts[7])
            kind = kind if domain in _OWN_DOMAINS else f"{domain}::{kind}"
            node = _Node(kind, tuple(_text(data, [one]) for one in parts[1]))
            makers.update((_text(data, [one]), node) for one in parts[2])
    return makers


def _walk_model(data: Buffer) -> Iterator[str]:
    model = _fields(data, (0, len(data)))
    for graph in model[7]:
        yield from _walk_operators(data, _fields(data, graph)[1])
    for function in model[25]:
        yield from _walk_operators(data, _fields(data, function)[7])


def _walk_operators(data: Buffer, nodes: list[Span]) -> Iterator[str]:
    for node in (_fields(data, one) for one in nodes):
        yield _text(data, node[4])
        for attribute in (_fields(data, one) for one in node[5]):
            for graph in (*attribute[6], *attribute[11]):
                yield from _walk_operators(data, _fields(data, graph)[1])


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


def _fields(data: Buffer, span: Span) -> defaultdict[int, list[Span]]:
    """Where the messages and texts of a message lie, by the number of their field."""
    found = defaultdict[int, list[Span]](list)
    for number, wire, start, stop in walk_fields(data, *span):
        if wire == Wire.BYTES:
            found[number].append((start, stop))
    return found


def _text(data: Buffer, spans: list[Span]) -> str:
    return "".join(data[start:stop].decode("utf-8", "replace") for start, stop in spans)


def _number(data: Buffer, span: Span, wanted: int) -> int | None:
    found = None
    for number, wire, start, _ in walk_fields(data, *span):
        if number == wanted and wire == Wire.VARINT:
            found = read_varint(data, start)[0]
    return found
