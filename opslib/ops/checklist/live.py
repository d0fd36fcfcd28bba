"""Talking to the service that runs: its key from `.env`, short timeouts, and what to say where
it could not be asked."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.kinds import Kind
from opslib.ops.checklist.items import Answer, State, Visit
from opslib.serving.client import LiveHealth, ServiceClient, ServiceError
from opslib.serving.keys import HEADER
from opslib.serving.live import LiveVersion, normalise_url
from opslib.serving.swap import read_version

AGENT = {"User-Agent": "pillops-checklist"}
TOO_MANY = 429
SEE_SERVICE = "first the service itself: see Health, inside"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def start_step(config: Config) -> str:
    """Return what to do about a service that does not run; our own has a command for it."""
    address = urlsplit(normalise_url(config.client.url))
    here = address.hostname in _LOOPBACK and (address.port or 80) == config.service.port
    return "start the service" + (": `make serve`" if here and not config.models else "")


def read_key(visit: Visit) -> str:
    """Return the service's key, or an empty text where there is none."""
    secret = load_service_environment(visit.config).api_key
    return secret.get_secret_value() if secret else ""


def open_http(visit: Visit, *, key: str | None = None) -> httpx.Client:
    """Return an HTTP client of the running service, with `key` where one is given."""
    return httpx.Client(
        base_url=normalise_url(visit.config.client.url),
        headers={**AGENT, **({HEADER: key} if key else {})},
        timeout=visit.config.checklist.timeout_s,
        trust_env=False,
    )


def ask_health(visit: Visit, kind: Kind) -> LiveHealth:
    """Return what the service says of itself and of its model of this kind. Raises ServiceError: it
    refuses or does not answer."""
    with _open_client(visit, kind) as client:
        return client.health()


def ask_version(visit: Visit, kind: Kind) -> LiveVersion | None:
    """Return which model of this kind is served, or None where the service is up and has none.
    Raises ServiceError: it refuses or does not answer."""
    with _open_client(visit, kind) as client:
        return read_version(client)


def _open_client(visit: Visit, kind: Kind) -> ServiceClient:
    timeout_s = visit.config.checklist.timeout_s
    return ServiceClient(kind.client.url, read_key(visit), kind.client, timeout_s=timeout_s)


def could_not_ask(error: ServiceError | httpx.HTTPError | OSError) -> Answer:
    """Return the answer of an item whose question the service did not hear, or refused."""
    if not isinstance(error, ServiceError):
        said = getattr(error, "strerror", None) or str(error)
        words = " ".join(said.split()) or type(error).__name__
        return Answer.of("unknown", f"no answer: {words}", step=SEE_SERVICE)
    state: State = "unknown" if error.status in (None, TOO_MANY) else "failed"
    return Answer.of(state, str(error), step=error.hint if error.status else SEE_SERVICE)
