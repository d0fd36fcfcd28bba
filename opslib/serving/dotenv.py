"""Changing one variable of `.env` in one step; comments, order and file mode stay."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from opslib.core.files import write_text_atomic

PRIVATE = 0o600


def set_variable(env_file: Path, name: str, value: str, *, note: str | None = None) -> None:
    """Set `name` to `value` in `env_file`, which is made, readable by its owner alone, if missing.

    Args:
        note: a comment kept on the line above; an earlier note of the same beginning is replaced.

    Raises:
        StorageError: the file cannot be written.
    """
    text = env_file.read_text(encoding="utf-8") if env_file.exists() else ""
    mode = stat.S_IMODE(env_file.stat().st_mode) if env_file.exists() else PRIVATE
    lines = text.splitlines()
    if note is not None:
        head = " ".join(note.split()[:3])
        lines = [line for line in lines if not line.startswith(head)]
    assigned = re.compile(rf"\s*(export\s+)?{re.escape(name)}\s*=")
    places = [index for index, line in enumerate(lines) if assigned.match(line)]
    entry = [*([note] if note else []), f"{name}={value}"]
    if places:
        first = places[0]
        rest = [line for index, line in enumerate(lines) if index not in places]
        lines = [*rest[:first], *entry, *rest[first:]]
    else:
        lines += entry
    is_secret = name == "API_KEY"
    write_text_atomic(
        env_file.resolve(), "\n".join(lines) + "\n", mode=mode & PRIVATE if is_secret else mode
    )
