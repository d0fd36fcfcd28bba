"""The access log: one JSON line a request, appended in one write, reopened after a rename."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opslib.core.errors import storage_errors
from opslib.core.ownership import open_to_append
from opslib.core.secrets import mask
from opslib.serving.sparing import Sparing


class AccessLog:
    """Appends lines to `path`; a rotation that renames the file loses none of them.

    It is called for each request on the event loop, which is why it does without `logging`.
    Secrets are masked.
    """

    def __init__(self, path: Path, secrets: Iterable[str]) -> None:
        self._path = path
        self._secrets = tuple(secrets)
        self._sparing = Sparing()
        with storage_errors(f"write {path}"):
            self._open()

    def write(self, fields: dict[str, Any]) -> None:
        """Append `fields` and the time; a full disk loses the line, never the request."""
        at_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at_utc": at_utc, **fields}, ensure_ascii=False)
        data = (mask(line, self._secrets) + "\n").encode("utf-8", "backslashreplace")
        try:
            if self._was_renamed():
                os.close(self._descriptor)
                self._open()
            os.write(self._descriptor, data)
        except OSError:
            return

    def write_sparingly(self, status: int, fields: dict[str, Any]) -> None:
        """Append `fields` if they are among the first few of this status; else count them."""
        if self._sparing.take(status):
            self.write(fields)

    def sum_up(self) -> None:
        """Append how many requests had no line, for each status."""
        for status, count in self._sparing.drain().items():
            said = f"{count} more requests without a key"
            self.write({"message": said, "status": status, "more": count})

    def close(self) -> None:
        """Sum up and close the file."""
        self.sum_up()
        os.close(self._descriptor)

    def _open(self) -> None:
        self._descriptor = open_to_append(self._path)
        seen = os.fstat(self._descriptor)
        self._identity = (seen.st_dev, seen.st_ino)

    def _was_renamed(self) -> bool:
        try:
            seen = self._path.stat()
        except FileNotFoundError:
            return True
        return (seen.st_dev, seen.st_ino) != self._identity
