"""An archive that can be read, wherever it lies: verifying and restoring ask for no more."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from opslib.core.errors import InputError
from opslib.ops.release.companions import (
    manifest_path,
    open_regular,
    read_checksum,
    read_companion,
    signature_path,
)


class Archive(Protocol):
    """An archive that can be read, wherever it lies."""

    @property
    def file_name(self) -> str:
        """Its name with its ending, for messages too."""

    def open(self) -> BinaryIO:
        """Open it to read: each read gives as many bytes as asked for, fewer at its end alone; it
        can be told where it is, and sent back to its start. Raises InputError: it cannot be."""

    def read_checksum(self) -> str:
        """Return the digest that the file beside it states. Raises ReleaseError: see
        `companions.read_checksum`."""

    def read_listing(self) -> bytes:
        """Return what lies beside it as a copy of its manifest, empty where nothing does."""

    def read_signature(self) -> bytes:
        """Return what lies beside it as the signature of its manifest, empty where nothing does."""


@dataclass(frozen=True)
class ArchiveFile:
    """An archive in a folder of this host."""

    path: Path

    @property
    def file_name(self) -> str:
        return self.path.name

    def open(self) -> BinaryIO:
        try:
            return open_regular(self.path)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error

    def read_checksum(self) -> str:
        return read_checksum(self.path)

    def read_listing(self) -> bytes:
        with suppress(OSError):
            return read_companion(manifest_path(self.path))
        return b""

    def read_signature(self) -> bytes:
        with suppress(OSError):
            return read_companion(signature_path(self.path))
        return b""


def as_archive(found: Path | Archive) -> Archive:
    """Return the archive at a path as one that can be read, any other as it is."""
    return ArchiveFile(found) if isinstance(found, Path) else found
