"""A model and its external-data sidecars as one unit, found by reading the file itself."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from opslib.core.errors import ModelError
from opslib.core.files import sha256_bytes, sha256_file
from opslib.core.wire import Buffer, FileBytes, Wire, walk_fields

# Field numbers of onnx.proto: the messages that can lead to a tensor's external location.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
CHECKPOINT_SUFFIXES = (".pt", ".pth")
_CHECKPOINT_STARTS = (b"P", b"\x80")  # of a zip file and of a pickle
_STARTS = {  # of what is taken for ONNX, and what it is
    b"ORTM": "ONNX Runtime's own format (.ort)",
    b"version https://git-lfs": "a Git LFS pointer",
    b"PK\x03\x04": "a zip file, such as a Torch checkpoint",
}
_START_BYTES = 32  # the mark of the .ort format stands behind its first number
_SMALL_BYTES = 1 << 14  # a message that is read at once; others are walked from field to field


@dataclass(frozen=True)
class ModelFiles:
    """An ONNX file with the sidecars that hold its weights; moved, hashed and packed together."""

    path: Path
    sidecars: tuple[Path, ...] = ()

    @property
    def all(self) -> tuple[Path, ...]:
        """The model first, then its sidecars."""
        return (self.path, *self.sidecars)

    @property
    def size_bytes(self) -> int:
        """Bytes of the model and its sidecars together."""
        return sum(path.stat().st_size for path in self.all)

    def digest(self) -> str:
        """Return the unit's SHA-256: the file's own where it stands alone (as `sha256sum`
        prints it), else over the sorted `name size sha256` lines of all its files."""
        if not self.sidecars:
            return sha256_file(self.path)
        lines = (f"{p.name} {p.stat().st_size} {sha256_file(p)}\n" for p in self.all)
        return sha256_bytes("".join(sorted(lines)).encode())


def follow_model(path: Path) -> Path:
    """Return where a model lies, with its weights and card: `path` with its links followed.

    A Hugging Face cache keeps files under their digests in `blobs` and links to them from
    `snapshots`: there the link is the place, since it alone has the model's name and company.
    """
    real = Path(os.path.realpath(path))
    snapshots = real.parent.parent / "snapshots"
    step = path
    while real.parent.name == "blobs":
        place = Path(os.path.realpath(step.parent)) / step.name
        if place.is_relative_to(snapshots):
            return place
        if not place.is_symlink():
            break
        step = place.parent / place.readlink()
    return real


def resolve_model(path: Path, expected: str = "an ONNX model") -> Path:
    """Return the file that `path` means; see `follow_model`. Raises `ModelError` where there is
    none: missing, a link that dangles or leads in a circle, a folder, or not to be looked at."""
    try:
        mode = Path(os.path.realpath(path, strict=True)).stat().st_mode
    except OSError as error:
        raise ModelError(
            f"{path}: {_describe_missing(path, error)}; expected {expected}"
        ) from error
    if not stat.S_ISREG(mode):
        what = "is a folder" if stat.S_ISDIR(mode) else "is no regular file"
        raise ModelError(f"{path}: {what}; expected {expected}")
    return follow_model(path)


def _describe_missing(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "its links lead in a circle"
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return f"cannot be read: {error.strerror}"
    try:
        return f"points at {path.readlink()}, which is not there"
    except OSError:
        return "no such file"


def is_onnx(path: Path) -> bool:
    """Return whether a model is ONNX and no Torch checkpoint: by its name, else by its first bytes,
    as where a cache keeps files under their digests."""
    if path.suffix in (".onnx", *CHECKPOINT_SUFFIXES):
        return path.suffix == ".onnx"
    try:
        with path.open("rb") as file:
            return file.read(1) not in _CHECKPOINT_STARTS
    except OSError:
        return False


def find_model_files(path: Path) -> ModelFiles:
    """Return the ONNX file at `path`, as `resolve_model`, with the sidecars it refers to.

    Reads the wire format without loading weights, so that it is fast on any size and needs no ONNX
    library. Raises `ModelError` where missing, not an ONNX model, or a sidecar is missing or lies
    outside the model's folder.
    """
    real = resolve_model(path)
    sidecars = []
    for location in sorted(set(_external_locations(real))):
        relative = PurePosixPath(location)
        if relative.is_absolute() or ".." in relative.parts:
            raise ModelError(f"{path}: its weights point outside its folder: {location}")
        sidecar = real.parent / relative
        if not sidecar.is_file():
            raise ModelError(f"{path}: its weights file {location} is missing beside it")
        sidecars.append(sidecar)
    return ModelFiles(real, tuple(sidecars))


def _external_locations(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ModelError(f"{path}: empty file; expected an ONNX model")
            data = FileBytes(file)
            if all(number != 7 for number, _, _ in _fields(data, 0, len(data))):
                raise ModelError(f"{path}: not an ONNX model (it has no graph)")
            return list(_walk(data, 0, len(data), "model"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError) as error:
        known = _recognise(path)
        what = f" but {known}" if known else f", or damaged ({error})"
        raise ModelError(f"{path}: not an ONNX model{what}") from error


def _recognise(path: Path) -> str | None:
    """What a file is that people take for an ONNX model, told by its first bytes."""
    with path.open("rb") as file:
        begin = file.read(_START_BYTES)
    return next((what for mark, what in _STARTS.items() if mark in begin), None)


def _walk(data: Buffer, start: int, end: int, message: str) -> Iterator[str]:
    if end - start <= _SMALL_BYTES:
        data, start, end = data[start:end], 0, end - start
    children = _MESSAGES[message]
    for number, begin, stop in _fields(data, start, end):
        child = children.get(number)
        if child == "entry":
            pair = {n: data[b:s] for n, b, s in _fields(data, begin, stop)}
            if pair.get(1) == b"location":
                yield pair[2].decode()
        elif child:
            yield from _walk(data, begin, stop, child)


def _fields(data: Buffer, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, begin, end) of each length-delimited field of a protobuf message."""
    for number, wire, begin, stop in walk_fields(data, position, end):
        if wire == Wire.BYTES:
            yield number, begin, stop
