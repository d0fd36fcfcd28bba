"""Which file of a damaged archive is damaged: read on past the damage and compare what is there."""

from __future__ import annotations

from typing import BinaryIO

from opslib.ops.release.inflate import DamagedGzipError, GzipReader
from opslib.ops.release.manifest import MANIFEST_NAME, Manifest, ReleaseError, parse_manifest
from opslib.ops.release.unpack import Contents, Limits, unpack

_SHOWN = 3


def name_damage(file: BinaryIO, limits: Limits, copy: Manifest | None) -> str | None:
    """Return the files whose bytes are not those listed, in a few words, or None where that
    cannot be known.

    Args:
        file: the archive.
        copy: the manifest kept beside it, for when the one inside is damaged too.
    """
    file.seek(0)
    with GzipReader(file, lenient=True) as reader:
        try:
            contents = unpack(reader, limits)
        except (ReleaseError, DamagedGzipError):
            return None
    manifest = _read(contents) or copy
    if manifest is None:
        return None
    found = {entry.path: entry for entry in contents.entries}
    wrong = [entry.path for entry in manifest.files if found.get(entry.path) != entry]
    if not wrong and _read(contents) is None:
        wrong = [MANIFEST_NAME]
    if not wrong:
        return None
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return ", ".join(wrong[:_SHOWN]) + more


def _read(contents: Contents) -> Manifest | None:
    try:
        return parse_manifest(contents.kept.get(MANIFEST_NAME, b""), "")
    except ReleaseError:
        return None
