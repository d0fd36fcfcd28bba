"""What a running service says it serves, asked with the standard library alone.

`opslib.serving.client` does the same with everything a switch needs; it costs a fifth of a second
to import, which a job that mostly finds nothing to do should not pay.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import StorageError

_HEADER = "X-API-Key"
_MAX_BYTES = 1 << 20


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
    url, section = config.client.url.rstrip("/"), config.client
    secret = load_service_environment(config).api_key
    if secret is None:
        return LiveModel("API_KEY is not set: no service was asked what it serves")
    try:
        status, body = _get(f"{url}/version", secret.get_secret_value(), config)
    except ConnectionRefusedError:
        return LiveModel(f"no service answers at {url}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StorageError(f"{url}/version did not answer: {reason}") from error
    try:
        content = json.loads(body)
        path, sha256 = content.get(section.path_field), content.get(section.digest_field)
    except (ValueError, AttributeError):
        path = sha256 = None
    path, sha256 = (one if isinstance(one, str) and one else None for one in (path, sha256))
    if status != 200 or not (path or sha256):
        raise StorageError(f"{url}/version answered {status} and not what it serves")
    where = config.resolve(path) if path and "\0" not in path else None
    return LiveModel(f"{url} serves {path or sha256}", where, sha256)


def _get(url: str, key: str, config: Config) -> tuple[int, bytes]:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    timeout_s = config.maintenance.version_timeout_s
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path, headers={_HEADER: key, "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_BYTES)
    finally:
        connection.close()
