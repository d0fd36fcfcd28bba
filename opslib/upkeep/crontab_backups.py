"""The crontab as it was before each change: dated files, of which the newest are kept."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from pathlib import Path

from opslib.core.files import ensure_writable, write_bytes_atomic
from opslib.core.formatting import stamp
from opslib.core.plans import Action
from opslib.upkeep.gzip_logs import free_name

KEPT = 10
_PRIVATE = 0o600
_NAME = re.compile(r"crontab-(\d{8}-\d{6})(?:-(\d+))?\.bak")


def keep_backup(folder: Path, text: str) -> Path:
    """Write a crontab to a new dated file in `folder`, which its owner alone may read, also where
    the folder is another account's; return the file.

    Raises:
        StorageError: it cannot be written.
    """
    backup = free_name(ensure_writable(folder), f"crontab-{stamp()}", ".bak")
    data = text.encode("utf-8", "surrogateescape")
    write_bytes_atomic(backup, data, mode=_PRIVATE, owner="writer")
    return backup


def plan_backups(folder: Path, now: datetime) -> tuple[Action, ...]:
    """Return the steps that delete all but the newest ten backups in `folder`.

    One that is dated after `now` was written by a clock that was ahead: it is neither counted nor
    deleted.
    """
    found = []
    for path in folder.glob("crontab-*.bak"):
        match = _NAME.fullmatch(path.name)
        if match and match[1] <= stamp(now) and path.is_file() and not path.is_symlink():
            found.append((match[1], int(match[2] or 1), path))
    why = f"older than the newest {KEPT} backups of the crontab"
    return tuple(
        Action("delete", path.name, why, partial(path.unlink, missing_ok=True), path.stat().st_size)
        for _, _, path in sorted(found)[:-KEPT]
    )
