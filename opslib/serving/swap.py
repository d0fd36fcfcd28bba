"""Switching hosts to a model, one after the other, each confirmed before the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from opslib.core.errors import ModelError
from opslib.core.files import sha256_file
from opslib.core.models import find_model_files
from opslib.serving.client import LiveVersion, ServiceClient, ServiceError

Show = Callable[[str], None]


@dataclass(frozen=True)
class Confirmed:
    """One host that serves the model, as its own `/version` says."""

    url: str
    before: LiveVersion | None
    after: LiveVersion
    digest_verified: bool


def switch_hosts(clients: Sequence[ServiceClient], path: str, show: Show) -> list[Confirmed]:
    """Switch each service to the model at `path`; the first failure ends it.

    Raises:
        ServiceError: a host refused, did not answer or does not serve the model afterwards; the
            hosts after it were not touched.
    """
    digests = local_digests(Path(path))
    done = []
    for client in clients:
        with client:
            done.append(_switch_host(client, path, digests, show))
    return done


def _switch_host(
    client: ServiceClient, path: str, digests: frozenset[str], show: Show
) -> Confirmed:
    before = read_version(client)
    show(f"{client.url}: before {before.describe() if before else 'no model'}")
    try:
        warning = client.reload(path).get("warning")
    except ServiceError as error:
        if error.stage == "timeout":
            show(f"{client.url}: now {client.version().describe()}")
        raise
    after = client.version()
    verified = confirm(client.url, after, path, digests)
    note = "" if verified else " (digest unverified: the path was compared)"
    note += f"; warning: {warning}" if isinstance(warning, str) else ""
    show(f"{client.url}: after  {after.describe()}{note}")
    return Confirmed(client.url, before, after, verified)


def confirm(url: str, live: LiveVersion, path: str, digests: frozenset[str]) -> bool:
    """Return whether the digest proves that `live` is the model at `path`.

    False where there is no digest to compare and the path is the one asked for.

    Raises:
        ServiceError: it is another model.
    """
    if live.sha256 and digests:
        if live.sha256 in digests:
            return True
        problem = f"serves sha256 {live.sha256[:12]}…, the file is {sorted(digests)[0][:12]}…"
    elif live.model_path is None or _same_file(live.model_path, path):
        if live.model_path is not None:
            return False
        problem = "its /version has neither a digest nor a path"
    else:
        problem = f"serves {live.model_path}"
    raise ServiceError(
        f"{url}: not confirmed: {problem}",
        status=200,
        stage="confirm",
        hint="is another reload or host involved? see client.path_field and client.digest_field",
    )


def local_digests(path: Path) -> frozenset[str]:
    """Return the digests that the model at `path` may be known by; none where it is not here."""
    try:
        files = find_model_files(path)
        return frozenset({files.digest(), sha256_file(files.path)})
    except (ModelError, OSError):
        return frozenset()


def read_version(client: ServiceClient) -> LiveVersion | None:
    """Return what a service serves, or None where it is up and has no model.

    Raises:
        ServiceError: it refuses or does not answer.
    """
    try:
        return client.version()
    except ServiceError as error:
        if error.status != 503:
            raise
        return None


def _same_file(first: str, second: str) -> bool:
    return first == second or Path(first).resolve() == Path(second).resolve()
