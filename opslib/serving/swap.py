"""Switching hosts to a model, one after the other, each confirmed before the next; and whether two
models are the same."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from opslib.core.errors import ModelError
from opslib.core.files import sha256_file
from opslib.core.models import find_model_files
from opslib.serving.client import ServiceClient, ServiceError
from opslib.serving.live import LiveVersion

Show = Callable[[str], None]
Check = Callable[[LiveVersion | None], str | None]


def switch_hosts(
    clients: Sequence[ServiceClient],
    path: str,
    show: Show,
    check: Check | None = None,
    *,
    dry_run: bool = False,
) -> None:
    """Switch each service to the model at `path`; the first failure (`ServiceError`) ends it, and
    the hosts after it are not touched.

    `check` is asked before the model is posted whether it may follow what is served; it returns
    what it could not check, or raises `ModelError`. With `dry_run` nothing is posted.
    """
    digests = local_digests(Path(path))
    for client in clients:
        with client:
            before = read_version(client)
            show(f"{client.url}: before {before.describe() if before else 'no model'}")
            unchecked = check(before) if check is not None else None
            if unchecked is not None:
                show(f"{client.url}: {unchecked}")
            if dry_run:
                show(f"{client.url}: would be asked to switch to {path}")
            else:
                _switch_host(client, path, digests, show, before)


def _switch_host(
    client: ServiceClient,
    path: str,
    digests: frozenset[str],
    show: Show,
    before: LiveVersion | None,
) -> None:
    try:
        warning = client.reload(path).get("warning")
        after = client.version()
        verified = confirm(client.url, after, path, digests)
    except ServiceError as error:
        show(f"{client.url}: stage {error.stage}; {_tell_outcome(client, before)}")
        raise
    note = "" if verified else ": the path was compared"
    note += f"; warning: {warning}" if isinstance(warning, str) else ""
    show(f"{client.url}: after  {after.describe()}{note}")


def _tell_outcome(client: ServiceClient, before: LiveVersion | None) -> str:
    """What is served after a switch that failed, as far as the service says."""
    try:
        now = read_version(client)
    except ServiceError as error:
        return f"which model serves now is not known: {error}"
    if now is None:
        return "no model is served now"
    if not now.said:
        return "which model serves now is not known: /version does not say"
    same = before is not None and now.is_same(before)
    return f"{'the previous model serves on' if same else 'now'}: {now.describe()}"


def confirm(url: str, live: LiveVersion, path: str, digests: frozenset[str]) -> bool:
    """Return whether the digest proves that `live` is the model at `path`; False where there is
    none to compare and the path is the one asked for. Another model is a `ServiceError`."""
    if live.sha256 and digests:
        if live.sha256 in digests:
            return True
        problem = f"serves sha256 {live.sha256[:12]}…, the file is {sorted(digests)[0][:12]}…"
    elif live.model_path is None:
        problem = "its /version has neither a digest nor a path"
    elif _same_file(live.model_path, path):
        return False
    else:
        problem = f"serves {live.model_path}"
    hint = (
        "is another reload or host involved? does /version tell the model in other fields "
        "than client.path_field and client.digest_field (models.<kind>.path_field)?"
    )
    raise ServiceError(f"{url}: not confirmed: {problem}", 200, "confirm", hint)


def local_digests(path: Path) -> frozenset[str]:
    """Return the digests that the model at `path` may be known by; none where it is not here."""
    try:
        files = find_model_files(path)
        return frozenset({files.digest(), sha256_file(files.path)})
    except (ModelError, OSError):
        return frozenset()


def read_version(client: ServiceClient) -> LiveVersion | None:
    """Return what a service serves, or None where it is up and has no model; see `version`."""
    try:
        live = client.version()
    except ServiceError as error:
        if error.status != 503:
            raise
        return None
    return None if live.empty else live


def is_same_model(live: LiveVersion, path: Path) -> bool:
    """Return whether `live` is the model at `path`: by digest where both say one, else by path."""
    digests = local_digests(path)
    if live.sha256 and digests:
        return live.sha256 in digests
    return live.model_path is not None and _same_file(live.model_path, str(path))


def _same_file(first: str, second: str) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)
