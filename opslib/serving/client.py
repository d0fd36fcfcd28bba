"""Talking to a service that honours the contract: ours, or the user's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from opslib.core.errors import OpsError, ParameterError
from opslib.core.secrets import show_address
from opslib.core.sections import ClientSection
from opslib.inference.hints import find_hint
from opslib.serving.health_answer import describe_degraded
from opslib.serving.keys import HEADER
from opslib.serving.version_answer import read_version_answer, text_or_none


class ServiceError(OpsError):
    """A service refused or did not answer; `stage` and `hint` say where to look."""

    def __init__(self, message: str, *, status: int | None, stage: str, hint: str) -> None:
        super().__init__(message)
        self.status = status
        self.stage = stage
        self.hint = hint


@dataclass(frozen=True)
class LiveVersion:
    """What `/version` says: path and digest of the model, where the service gives them.

    `wanted` is where the model should lie that a degraded service does not serve, and why it does
    not; None where all is well. `said` and `empty` are as in `VersionAnswer`.
    """

    model_path: str | None
    sha256: str | None
    version_tag: str | None
    generation: int | None
    wanted: str | None = None
    said: bool = True
    empty: bool = False

    def is_same(self, other: LiveVersion) -> bool:
        """Return whether both are the same model, by digest where both say one, else by path."""
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self.model_path is not None and self.model_path == other.model_path

    def describe(self) -> str:
        """Return the version in a few words."""
        digest = f"sha256 {self.sha256[:12]}…" if self.sha256 else "digest unverified"
        number = f", generation {self.generation}" if self.generation is not None else ""
        name = self.version_tag or self.model_path or "unknown"
        if self.sha256 is None and self.model_path is not None:
            name = self.model_path.rpartition("/")[2]  # a tag may be of several models together
        return f"{name} ({digest}{number})"


@dataclass(frozen=True)
class LiveHealth:
    """What `/health` says: whether a model is loaded (None: not said), on what, and in `degraded`,
    in a few words, that it is another one than should be."""

    device: str | None
    model_loaded: bool | None
    degraded: str | None


class ServiceClient:
    """A connection to one service; a context manager that closes it.

    `url` is its address as it may be shown.

    Args:
        url: such as `http://127.0.0.1:8000`.
        key: sent as `X-API-Key`, never shown.
        section: the names of its fields, and the timeout.
        timeout_s: overrides the section's.

    Raises:
        ParameterError: `url` is no address.
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
                headers={HEADER: key},
                timeout=httpx.Timeout(self._timeout_s, connect=min(5.0, self._timeout_s)),
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise ParameterError(f"{self.url}: expected http://HOST:PORT") from error

    def health(self) -> LiveHealth:
        """Return what the service says of itself; one that is degraded answers too.

        Raises:
            ServiceError: it does not answer, or not as a service does.
        """
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
        """Return which model the service says it serves.

        Raises:
            ServiceError: it refuses or does not answer.
        """
        answer = self._call("GET", "/version")
        found = read_version_answer(answer, self._section)
        generation = answer.get("generation")
        return LiveVersion(
            model_path=found.path,
            sha256=found.sha256,
            version_tag=text_or_none(answer.get("version_tag")),
            generation=generation if isinstance(generation, int) else None,
            wanted=_describe_wanted(answer.get("degraded")),
            said=found.said,
            empty=found.empty,
        )

    def reload(self, path: str) -> dict[str, Any]:
        """Ask the service to switch to the model at `path` and return its answer.

        Raises:
            ServiceError: it refuses (stage and hint say why) or does not answer.
        """
        return self._call("POST", "/reload", {self._section.request_field: path})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def _call(self, method: str, route: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, route, json=body)
        except httpx.TimeoutException as error:
            raise ServiceError(
                f"{self.url}{route}: no answer within {self._timeout_s:g} s",
                status=None,
                stage="timeout",
                hint="look at the service's log; /version shows what is served now",
            ) from error
        except (httpx.TransportError, UnicodeError) as error:
            raise ServiceError(
                f"{self.url}{route}: cannot be reached: {_ERRNO.sub('', str(error))}",
                status=None,
                stage="connect",
                hint="is the service up? `curl -s URL/health`; is host and port right?",
            ) from error
        if answer.status_code != 200:
            raise _refusal(self.url + route, answer)
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ServiceError(
                f"{self.url}{route}: answered no JSON object",
                status=200,
                stage="answer",
                hint="is this the service? a login page of a tunnel answers 200 too",
            )
        return content


def normalise_url(host: str) -> str:
    """Return `http://host:port` of an address given with or without its scheme."""
    return (host if "://" in host else f"http://{host}").rstrip("/")


_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_STATUS_HINTS = {
    401: "the key in .env is not the service's: was it rotated without a restart?",
    404: "no such route: is client.url the service's root?",
    422: "does its POST /reload take another field? set client.request_field "
    "(models.<kind>.request_field)",
    409: "another reload is under way: wait, then look at /version",
    429: "too many requests with this key: wait a minute",
    503: "the service has no model or is overloaded: look at its log",
}


def _refusal(where: str, answer: httpx.Response) -> ServiceError:
    try:
        content = answer.json()
    except ValueError:
        content = {}
    content = content if isinstance(content, dict) else {}
    body = " ".join(answer.text.split())[:600]
    stage = str(content.get("stage") or "unknown")
    detail = str(content.get("detail") or body)
    hint = content.get("hint") or _STATUS_HINTS.get(answer.status_code)
    return ServiceError(
        f"{where}: {answer.status_code} {body}",
        status=answer.status_code,
        stage=stage,
        hint=str(hint or find_hint(stage, detail)),
    )


def _describe_wanted(said: Any) -> str | None:
    if not isinstance(said, dict):
        return None
    path = text_or_none(said.get("wanted_path")) or "a model that is not known"
    why, reason = text_or_none(said.get("why")), text_or_none(said.get("reason"))
    return f"{path}{f' ({why})' if why else ''} should be served{f': {reason}' if reason else ''}"
