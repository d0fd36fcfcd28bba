"""A new API key: into `.env` in one step, and what has to be done about it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opslib.core.clock import is_ahead
from opslib.core.formatting import utc_now
from opslib.serving.dotenv import set_variable
from opslib.serving.keys import KEY_VARIABLE, key_since, make_key

MAX_AGE_DAYS = 31


@dataclass(frozen=True)
class Rotation:
    """A finished rotation: the file, how old the key before it was, and the steps that follow."""

    env_file: Path
    old_age_days: float | None
    next_steps: tuple[str, ...]


def rotate_key(env_file: Path) -> Rotation:
    """Put a new key into `env_file`; it is not shown.

    Raises:
        StorageError: the file cannot be written.
    """
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
