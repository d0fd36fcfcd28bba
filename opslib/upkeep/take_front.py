"""Moving what is in a log into an archive under its writer, as both rotations do it."""

from __future__ import annotations

import os
from pathlib import Path

from opslib.core.errors import StorageError
from opslib.upkeep.cut_log import (
    Cut,
    Way,
    blank_front,
    collapse_works,
    finish_cut,
    plan_cut,
    remember_cut,
)
from opslib.upkeep.gzip_logs import compress_range
from opslib.upkeep.open_files import find_writers


def take_front(log: Path, archive: Path, tail: str) -> Cut | None:
    """Compress what is in the log into the new file `archive`, then take it off the log's front;
    return how, or None where there is not a block to remove.

    Args:
        tail: name of the file beside the log that a truncation copies the rest into.

    Raises:
        StorageError: a writer would leave a hole, the log was replaced meanwhile, or the disk
            refuses; nothing is lost then.
    """
    careless = next((one for one in find_writers(log) if not one.appends), None)
    if careless is not None:
        raise StorageError(
            f"process {careless.pid} writes it without appending; have it started with `>>`"
        )
    way: Way = "collapse" if collapse_works(log.parent) else "truncate"
    with log.open("rb") as source:
        descriptor = source.fileno()
        cut = plan_cut(descriptor, log, archive.name, way, tail)
        if cut is None:
            return None
        remember_cut(log.parent, cut)
        written_ns = os.fstat(descriptor).st_mtime_ns
        compress_range(source, blank_front(descriptor), cut.archived_to, archive, written_ns)
    if not finish_cut(log.parent, cut):
        raise StorageError("it was replaced while it was rotated; both are kept")
    return cut
