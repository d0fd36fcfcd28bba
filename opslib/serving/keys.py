"""API keys: strong enough or refused, compared in constant time, made anew and dated."""

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opslib.core.clock import is_ahead, parse_moment
from opslib.core.errors import ConfigError
from opslib.core.formatting import utc_now
from opslib.core.language import tr

KEY_BYTES = 32
KEY_VARIABLE = "API_KEY"
HEADER = "X-API-Key"
MAX_AGE_DAYS = 31
_MIN_DISTINCT_BYTES = 12
_PLAIN = re.compile(r"[A-Za-z0-9+/=_-]+")
_SINCE = re.compile(r"^# API_KEY since (\S+)$", re.MULTILINE)


def make_key() -> str:
    """Return a new key: 32 random bytes as 64 hex digits."""
    return secrets.token_hex(KEY_BYTES)


def check_key(key: str | None) -> bytes:
    """Return the key as bytes if it can be what `openssl rand -hex 32` prints; else a `ConfigError`
    says how to make one, and never repeats it."""
    remedy = tr("make one with `openssl rand -hex 32` or `pillops key rotate` and keep it in .env")
    key = key or ""
    strength = len(key) // 2 if re.fullmatch(r"[0-9a-fA-F]+", key) else len(key) * 6 // 8
    problem = None
    if not key:
        problem = tr("not set")
    elif not _PLAIN.fullmatch(key):
        problem = tr("has characters other than letters and digits")
    elif strength < KEY_BYTES:
        problem = tr(
            "too weak ({bytes} bytes, {wanted} random ones wanted)",
            bytes=strength,
            wanted=KEY_BYTES,
        )
    elif len(set(key)) < _MIN_DISTINCT_BYTES or key in (key + key)[1:-1]:
        problem = tr("too weak (it repeats itself)")
    if problem is not None:
        raise ConfigError(f"{KEY_VARIABLE}: {problem}; {remedy}")
    return key.encode()


def check_sendable(key: str) -> str:
    """Return the key if a header can carry it, as one that was cut from a file with its end of line
    cannot; else a `ConfigError`, which never repeats it."""
    if key.isascii() and key.isprintable() and key == key.strip():
        return key
    problem = tr(
        "{key}: begins or ends with a blank, or has signs that no request can carry; "
        "look for it in the environment and in .env",
        key=KEY_VARIABLE,
    )
    raise ConfigError(problem)


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


@dataclass(frozen=True)
class Rotation:
    """A finished rotation: the file, how old the key before it was, and the steps that follow."""

    env_file: Path
    old_age_days: float | None
    next_steps: tuple[str, ...]


def rotate_key(env_file: Path) -> Rotation:
    """Put a new key into `env_file`; it is not shown."""
    from opslib.serving.dotenv import set_variable

    age = key_age_days(env_file)
    note = f"# {KEY_VARIABLE} since {utc_now().isoformat(timespec='seconds')}"
    set_variable(env_file, KEY_VARIABLE, make_key(), note=note)
    steps = (
        "restart the service: until then it accepts the key before only"
        if age is not None
        else "start the service, or restart it: it has to read the key",
        "update X-API-Key at every client: front end, scripts, monitors",
        "check with curl: /version answers 200 to the new key and 401 to any other",
    )
    return Rotation(env_file, age, steps)


def key_age_days(env_file: Path) -> float | None:
    """Return the age of the key in `env_file` in days, or None where there is no key; it is
    negative for one that a clock running ahead has dated."""
    since = key_since(env_file)
    if since is None:
        return None
    age = (utc_now() - since).total_seconds() / 86_400
    return age if is_ahead(since) else max(0.0, age)
