"""The files of a release, opened: what was opened is what is packed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from opslib.core.cards import FileEntry, ModelCard
from opslib.core.errors import InputError
from opslib.ops.release.manifest import ReleasedKind


@contextmanager
def read_errors(source: Path) -> Iterator[None]:
    """Raise an `InputError` that names the file where it cannot be read."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class OpenedFile:
    """A file of the release: its member name, where it came from, and what was opened."""

    member: str
    source: Path
    file: BinaryIO = field(repr=False)
    size: int
    mtime_ns: int

    def read_into(self, space: memoryview) -> int:
        """Fill `space` with the next bytes and return how many, or raise `InputError`."""
        with read_errors(self.source):
            return os.readv(self.file.fileno(), [space])

    def read_at(self, offset: int, count: int) -> bytes:
        """Return bytes without moving the place that `read_into` reads from."""
        with read_errors(self.source):
            return os.pread(self.file.fileno(), count, offset)

    def read_object(self) -> dict[str, Any]:
        """Return the JSON object in it, or raise `InputError`: it held one when it was chosen."""
        try:
            said = json.loads(self.read_at(0, self.size))
        except (ValueError, RecursionError):
            said = None
        if isinstance(said, dict):
            return said
        raise InputError(f"{self.source}: no JSON object any more; release again")

    def ensure_unchanged(self) -> None:
        """Raise `InputError` where its size or its time of change is another by now."""
        now = os.fstat(self.file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns):
            raise InputError(f"{self.source}: changed while it was packed; release again")


@dataclass(frozen=True)
class OpenedModel:
    """A model and its sidecars, opened as one unit, and its card. Where the model is a copy without
    metadata, `original` is the one that it is a copy of, which the card still states."""

    files: tuple[OpenedFile, ...]
    card: ModelCard | None
    card_member: str | None
    original: FileEntry | None = None

    @property
    def model(self) -> OpenedFile:
        """The ONNX file itself."""
        return self.files[0]


@dataclass(frozen=True)
class Collection:
    """All files of a release, opened; `main` and `latest` are members. Where the configuration has
    `models:`, `kinds` says both of each kind, and `latest` is None."""

    files: tuple[OpenedFile, ...]
    models: tuple[OpenedModel, ...]
    main: str
    latest: str | None
    kinds: tuple[ReleasedKind, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.files)
