"""API keys: strong enough or refused, compared in constant time, made anew and dated."""

from __future__ import annotations

import hmac
import re
import secrets
from datetime import datetime
from pathlib import Path

from opslib.core.clock import parse_moment
from opslib.core.errors import ConfigError
from opslib.core.formatting import utc_now

KEY_BYTES = 32
KEY_VARIABLE = "API_KEY"
HEADER = "X-API-Key"
MAKE_KEY = "openssl rand -hex 32"
_MIN_DISTINCT_BYTES = 12
_PLAIN = re.compile(r"[A-Za-z0-9+/=_-]+")
_SINCE = re.compile(r"^# API_KEY since (\S+)$", re.MULTILINE)


def make_key() -> str:
    """Return a new key: 32 random bytes as 64 hex digits."""
    return secrets.token_hex(KEY_BYTES)


def check_key(key: str | None) -> bytes:
    """Return the key as bytes if it can be what `openssl rand -hex 32` prints.

    Raises:
        ConfigError: there is none or it is too weak; the message says how to make one and never
            repeats it.
    """
    remedy = f"make one with `{MAKE_KEY}` or `pillops key rotate` and keep it in .env"
    if not key:
        raise ConfigError(f"{KEY_VARIABLE}: not set; {remedy}")
    if not _PLAIN.fullmatch(key):
        raise ConfigError(f"{KEY_VARIABLE}: has characters other than letters and digits; {remedy}")
    strength = _random_bytes(key)
    if strength < KEY_BYTES:
        raise ConfigError(
            f"{KEY_VARIABLE}: too weak ({strength} bytes, {KEY_BYTES} random ones wanted); {remedy}"
        )
    if len(set(key)) < _MIN_DISTINCT_BYTES or _repeats(key):
        raise ConfigError(f"{KEY_VARIABLE}: too weak (it repeats itself); {remedy}")
    return key.encode()


def keys_match(expected: bytes, given: bytes) -> bool:
    """Return whether two keys are the same, in time that does not tell where they differ."""
    return hmac.compare_digest(expected, given)


def key_since(env_file: Path) -> datetime | None:
    """Return when the key in `env_file` was made: the note above it, else the file's own date."""
    if not env_file.is_file():
        return None
    note = _SINCE.search(env_file.read_text(encoding="utf-8", errors="replace"))
    noted = parse_moment(note.group(1)) if note else None
    return noted or datetime.fromtimestamp(env_file.stat().st_mtime, tz=utc_now().tzinfo)


def _random_bytes(key: str) -> int:
    """How many random bytes a key of this alphabet can hold."""
    if re.fullmatch(r"[0-9a-fA-F]+", key):
        return len(key) // 2
    return len(key) * 6 // 8


def _repeats(key: str) -> bool:
    return any(
        len(key) % size == 0 and key == key[:size] * (len(key) // size)
        for size in range(1, len(key) // 2 + 1)
    )
