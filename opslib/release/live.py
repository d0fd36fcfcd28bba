"""What a running service serves, where one answers: asked before anything is deleted."""

from __future__ import annotations

from pathlib import Path

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import OpsError

_TIMEOUT_S = 3.0


def ask_live_path(config: Config) -> Path | None:
    """Return the model file that the configured service says it serves, or None where there is no
    service, no key, or no such file on this host."""
    from opslib.serving.client import ServiceClient

    secret = load_service_environment(config).api_key
    if secret is None:
        return None
    url, key = config.client.url, secret.get_secret_value()
    try:
        with ServiceClient(url, key, config.client, timeout_s=_TIMEOUT_S) as client:
            served = client.version().model_path
    except OpsError:
        return None
    return Path(served) if served and Path(served).exists() else None
