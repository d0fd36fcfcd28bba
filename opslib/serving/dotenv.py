"""Changing one variable of `.env`: read as the service reads it, all else as it was, one writer at
a time."""

import re
from collections.abc import Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from stat import S_IMODE, S_IRWXO

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from opslib.core.changes import change_file
from opslib.core.errors import ConfigError, storage_errors
from opslib.core.files import ensure_writable
from opslib.core.secrets import is_secret_name

PRIVATE = 0o600
_BOM = "\ufeff"
_PLAIN = re.compile(r"[\w@%+=:,./-]*")


def set_variable(env_file: Path, name: str, value: str, *, note: str | None = None) -> None:
    """Set `name` to `value` in `env_file`, which is made, readable by its owner alone, if missing;
    with a `note` on the line above, which replaces an earlier one of the same beginning.

    Raises:
        BusyError: another process is changing it.
        ConfigError: it is not UTF-8, or no line of it would be read as `value`.
        StorageError: it cannot be written, or not without taking it from its owner.
    """
    change = partial(_change, env_file=env_file, name=name, value=value, note=note)
    change_file(env_file, change, mode=_new_mode(env_file, name))


def check_variable(env_file: Path, name: str, value: str) -> None:
    """Make sure that `set_variable` would do it, as far as can be seen beforehand."""
    target = env_file.resolve()
    ensure_writable(target.parent)
    with storage_errors(f"read {env_file}"):
        before = target.read_bytes() if target.exists() else None
    _change(before, env_file=env_file, name=name, value=value, note=None)


def _new_mode(env_file: Path, name: str) -> int | None:
    """The mode that the file gets: its own, unless everybody may read a secret in it."""
    try:
        mode = S_IMODE(env_file.stat().st_mode)
    except FileNotFoundError:
        return PRIVATE
    return mode & PRIVATE if is_secret_name(name) and mode & S_IRWXO else None


def _change(
    before: bytes | None, *, env_file: Path, name: str, value: str, note: str | None
) -> bytes:
    try:
        text = (before or b"").decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{env_file}: not UTF-8 text: {error.reason}") from error
    fresh = edit_dotenv(text, name, value, note=note)
    others = {key: one for key, one in _read(text).items() if not _is(name, key)}
    kept = {key: one for key, one in _read(fresh).items() if key != name}
    if kept != others or _read(fresh, interpolate=True).get(name) != value:
        raise ConfigError(
            f"{env_file}: {name} cannot be written so that it is read as it is meant: it, or a "
            "line above it, has a quote that does not end, or text like ${...}"
        )
    return fresh.encode()


def edit_dotenv(text: str, name: str, value: str, *, note: str | None = None) -> str:
    """Return the text of a `.env` with `name` set where it stood first, else at the end.

    Values over several lines are one variable, as for python-dotenv, which reads the file for the
    service. Names count whatever their case, as they do there.
    """
    end = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    head = " ".join(note.split()[:3]) if note else None
    bindings = list(parse_stream(StringIO(text, newline="")))
    entry = _entry(name, value, note, end, bindings)
    parts: list[str] = [_BOM] if text.startswith(_BOM) else []
    placed = False
    for one in bindings:
        if _is(name, one.key):
            space = re.match(r"\s*", one.original.string)  # the parser counts what is above to it
            parts.append(re.sub(r"[^\S\r\n]+\Z", "", space[0]) if space else "")
            parts += [] if placed else entry
            placed = True
        elif one.key is None and head is not None:
            lines = one.original.string.splitlines(keepends=True)
            parts += [line for line in lines if not line.startswith(head)]
        else:
            parts.append(one.original.string)
    if not placed:
        if parts and parts[-1] and parts[-1][-1] not in f"\r\n{_BOM}":
            parts.append(end)
        parts += entry
    return "".join(parts)


def _entry(
    name: str, value: str, note: str | None, end: str, bindings: Sequence[Binding]
) -> list[str]:
    before = next((one.original.string for one in bindings if _is(name, one.key)), "")
    export = "export " if re.match(r"\s*export\s", before) else ""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    shown = value if _PLAIN.fullmatch(value) else f"'{escaped}'"
    return [f"{note}{end}"] * bool(note) + [f"{export}{name}={shown}{end}"]


def _is(name: str, key: str | None) -> bool:
    return key is not None and key.casefold() == name.casefold()


def _read(text: str, *, interpolate: bool = False) -> dict[str, str | None]:
    return dict(dotenv_values(stream=StringIO(text, newline=""), interpolate=interpolate))
