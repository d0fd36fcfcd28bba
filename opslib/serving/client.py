"""Talking to a service that honours the contract: ours, or the user's own."""

import re
from dataclasses import dataclass
from typing import Any, Self

import httpx

from opslib.core.errors import OpsError, ParameterError
from opslib.core.language import mark, tr
from opslib.core.secrets import show_address
from opslib.core.sections import ClientSection
from opslib.inference.causes import find_hint
from opslib.serving.keys import HEADER, check_sendable
from opslib.serving.live import (
    LiveVersion,
    describe_degraded,
    normalise_url,
    read_version_answer,
    text_or_none,
)


class ServiceError(OpsError):
    """A service refused or did not answer; `stage` and `hint` say where to look."""

    def __init__(self, message: str, status: int | None, stage: str, hint: str) -> None:
        super().__init__(message)
        self.status = status
        self.stage = stage
        self.hint = hint


@dataclass(frozen=True)
class LiveHealth:
    """What `/health` says: whether a model is loaded (None: not said), on what, and in `degraded`,
    in a few words, that it is another one than should be."""

    device: str | None
    model_loaded: bool | None
    degraded: str | None


class ServiceClient:
    """A connection to one service; a context manager that closes it. Whatever is asked raises
    `ServiceError` where the service refuses or does not answer.

    `url` is such as `http://127.0.0.1:8000` (else a `ParameterError`), and the attribute how it may
    be shown; `key` is sent as `X-API-Key` (a `ConfigError` where it cannot be) and never shown;
    `section` has the names of its fields and the timeout, which `timeout_s` overrides.
    """

    def __init__(
        self, url: str, key: str, section: ClientSection, *, timeout_s: float | None = None
    ) -> None:
        self.url = show_address(normalise_url(url))
        self._section = section
        self._timeout_s = timeout_s or section.timeout_s
        try:
            self._client = httpx.Client(
                base_url=normalise_url(url),
                headers={HEADER: check_sendable(key)},
                timeout=httpx.Timeout(self._timeout_s, connect=min(5.0, self._timeout_s)),
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise ParameterError(f"{self.url}: expected http://HOST:PORT") from error

    def health(self) -> LiveHealth:
        """Return what the service says of itself; one that is degraded answers too."""
        answer = self._call("GET", "/health")
        loaded: Any = answer
        for part in self._section.loaded_field.split("."):
            loaded = loaded.get(part) if isinstance(loaded, dict) else None
        return LiveHealth(
            device=text_or_none(answer.get("device")),
            model_loaded=loaded if isinstance(loaded, bool) else None,
            degraded=describe_degraded(answer),
        )

    def version(self) -> LiveVersion:
        """Return which model the service says it serves."""
        return read_version_answer(self._call("GET", "/version"), self._section)

    def reload(self, path: str) -> dict[str, Any]:
        """Ask the service to switch to the model at `path` and return its answer."""
        return self._call("POST", "/reload", {self._section.request_field: path})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _call(self, method: str, route: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, route, json=body)
        except httpx.TimeoutException as error:
            late = tr("no answer within {seconds:g} s", seconds=self._timeout_s)
            hint = tr("look at the service's log; /version shows what is served now")
            raise ServiceError(f"{self.url}{route}: {late}", None, "timeout", hint) from error
        except (httpx.TransportError, UnicodeError) as error:
            said = tr(
                "{address}: cannot be reached: {why}",
                address=f"{self.url}{route}",
                why=_ERRNO.sub("", str(error)),
            )
            hint = tr("is the service up? `curl -s URL/health`; is host and port right?")
            raise ServiceError(said, None, "connect", hint) from error
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.status_code != 200:
            status, text = answer.status_code, " ".join(answer.text.split())[:600]
            given = content if isinstance(content, dict) else {}
            stage, detail = str(given.get("stage") or "unknown"), str(given.get("detail") or text)
            hint = given.get("hint") or _find_hint(status) or find_hint(stage, detail)
            raise ServiceError(f"{self.url}{route}: {status} {text}", status, stage, str(hint))
        if not isinstance(content, dict):
            hint = tr("is this the service? a login page of a tunnel answers 200 too")
            said = tr("{address}: answered no JSON object", address=f"{self.url}{route}")
            raise ServiceError(said, 200, "answer", hint)
        return content


_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_STATUS_HINTS = {
    401: mark("the key in .env is not the service's: was it rotated without a restart?"),
    404: mark("no such route: is client.url the service's root?"),
    422: mark(
        "does its POST /reload take another field? set client.request_field "
        "(models.<kind>.request_field)"
    ),
    409: mark("another reload is under way: wait, then look at /version"),
    429: mark("too many requests with this key: wait a minute"),
    503: mark("the service has no model or is overloaded: look at its log"),
}


def _find_hint(status: int) -> str | None:
    hint = _STATUS_HINTS.get(status)
    return tr(hint) if hint else None
