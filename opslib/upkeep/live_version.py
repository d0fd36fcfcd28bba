"""What a running service says it serves, asked with the standard library alone.

`opslib.serving.client` does the same with everything a switch needs; it costs a fifth of a second
to import, which a job that mostly finds nothing to do should not pay.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import StorageError
from opslib.core.secrets import show_address
from opslib.upkeep.web import FAILURES, name_failure, request

_HEADER = "X-API-Key"


@dataclass(frozen=True)
class LiveModel:
    """The model a service serves, as it says; `note` tells what was asked and learnt."""

    note: str
    path: Path | None = None
    sha256: str | None = None


def ask_version(config: Config) -> LiveModel:
    """Return which model the service at `client.url` serves; no service, no model.

    Raises:
        StorageError: a service is there but does not say: then nobody knows what is in use.
        ConfigError: `.env` is unreadable.
    """
    section, url = config.client, config.client.url.rstrip("/")
    if "://" not in url:
        url = f"http://{url}"
    shown = show_address(url)
    secret = load_service_environment(config).api_key
    headers = {_HEADER: secret.get_secret_value()} if secret else {}
    try:
        status, body = request(
            f"{url}/version", config.maintenance.version_timeout_s, headers=headers
        )
    except ConnectionRefusedError:
        return LiveModel(f"no service answers at {shown}")
    except FAILURES as error:
        raise StorageError(f"{shown}/version did not answer: {name_failure(error)}") from error
    try:
        content = json.loads(body)
        path, sha256 = content.get(section.path_field), content.get(section.digest_field)
    except (ValueError, AttributeError):
        path = sha256 = None
    path, sha256 = (one if isinstance(one, str) and one else None for one in (path, sha256))
    if status != 200 or not (path or sha256):
        key = "" if secret else "; API_KEY is not set"
        raise StorageError(f"{shown}/version answered {status} and not what it serves{key}")
    where = config.resolve(path) if path and "\0" not in path else None
    return LiveModel(f"{shown} serves {path or sha256}", where, sha256)
