"""Moving what is in a log into an archive, in the way that its writer loses nothing.

- Nobody writes it, or its writer opens it anew after a rename: it is renamed, and compressed once
  the kernel says that nobody holds it open for writing any more.
- Anybody else: the front that was archived is taken off under the writer; see `cut_log`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from opslib.core.errors import StorageError
from opslib.core.files import fsync_folder
from opslib.upkeep import cut_log
from opslib.upkeep.gzip_logs import compress_file, compress_range
from opslib.upkeep.open_files import await_release, find_writers, is_written

RELEASE_WAIT_S = 2.0
Made = Callable[[Path, int], None]


def move_log(
    log: Path, front: Path, tail: Path, *, reopened: bool, put_back: bool, made: Made
) -> Path | None:
    """Move what is in `log` into the new archive `front`, a name that ends in `.gz`.

    Args:
        tail: where beside the log the rest of it is set aside while it is cut.
        reopened: whether its writer opens it anew after a rename.
        put_back: whether a log that somebody opened at the very moment of its rename gets its name
            back, and is cut; else it stays aside until that writer lets go of it.
        made: told of each archive and of the bytes that it freed.

    Returns:
        Where it waits for its writer to let go, or None.

    Raises:
        StorageError: a writer would leave a hole, or the log was replaced; nothing is lost then.
        OSError: the disk refuses.
    """
    if reopened or not is_written(log):
        aside = log.with_name(front.name.removesuffix(".gz"))
        log.rename(aside)
        fsync_folder(log.parent)
        if await_release(aside, RELEASE_WAIT_S):
            made(*compress_file(aside, front.parent))
            return None
        if not put_back:
            return aside
        os.link(aside, log)
        aside.unlink()
    cut = _take_front(log, front, tail.name)
    if cut is not None:
        removed = cut.removes if cut.way == "collapse" else cut.archived_to
        made(front, removed - front.stat().st_size)
        if tail.exists():
            made(*compress_file(tail, front.parent))
    return None


def finish_move(note: Path, archive: Path) -> tuple[cut_log.Cut, bool | None]:
    """Finish the cut that a killed run wrote down in `note`, whose archive lies in the folder
    `archive`; return it and whether the log was still the same, None where nothing was archived.
    """
    cut = cut_log.recall_cut(note)
    if not cut.marked and not (archive / cut.archive).exists():
        note.unlink()
        return cut, None
    return cut, cut_log.finish_cut(note.parent, cut)


def _take_front(log: Path, archive: Path, tail: str) -> cut_log.Cut | None:
    """Compress what is in the log into the new file `archive`, then take it off the log's front;
    return how, or None where there is not a block to remove.
    """
    careless = next((one for one in find_writers(log) if not one.appends), None)
    if careless is not None:
        raise StorageError(
            f"process {careless.pid} writes it without appending; have it started with `>>`"
        )
    with log.open("rb") as source:
        descriptor = source.fileno()
        way: cut_log.Way = "collapse" if cut_log.collapse_works(log.parent) else "truncate"
        cut = cut_log.plan_cut(descriptor, log, archive.name, way, tail)
        if cut is None:
            return None
        cut_log.remember_cut(log.parent, cut)
        written_ns = os.fstat(descriptor).st_mtime_ns
        compress_range(
            source, cut_log.blank_front(descriptor), cut.archived_to, archive, written_ns
        )
    if not cut_log.finish_cut(log.parent, cut):
        raise StorageError("it was replaced while it was rotated; both are kept")
    return cut
