"""What running services say they serve, asked with the standard library alone.

`opslib.serving.client` does the same with everything a switch needs; it costs a fifth of a second
to import, which a job that mostly finds nothing to do should not pay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import StorageError
from opslib.core.kinds import MODEL_SUFFIXES, list_kinds
from opslib.core.secrets import show_address
from opslib.core.sections import ClientSection
from opslib.core.web import FAILURES, name_failure, request
from opslib.serving.leases import FoundLease, find_leases
from opslib.serving.live import normalise_url, read_version_answer
from opslib.serving.reachable import LiveModel

_HEADER = "X-API-Key"


def ask_services(config: Config) -> tuple[LiveModel, ...]:
    """Return what each service that may use our models says: those at `client.url` and
    `maintenance.also_serving`, and those whose leases are not renewed any more.

    Raises:
        StorageError: one is there but does not say: then nobody knows what is in use.
        InputError: a lease cannot be read.
        ConfigError: `.env` is unreadable.
    """
    addresses = dict.fromkeys(
        map(normalise_url, (config.client.url, *config.maintenance.also_serving))
    )
    said = [one for address in addresses for one in ask_version(config, address)]
    asked = {address.replace("//localhost:", "//127.0.0.1:") for address in addresses}
    for one in find_leases(config):
        if one.lease.url() not in asked and one.may_be_outdated():
            said.append(_ask_tenant(config, one))
    return tuple(said)


def ask_version(config: Config, url: str) -> tuple[LiveModel, ...]:
    """Return which models the service at `url` serves: one of each kind, and whatever else it names
    that may be a model; no service, no model.

    Raises:
        StorageError: a service is there but does not say: then nobody knows what is in use.
        ConfigError: `.env` is unreadable.
    """
    shown = show_address(url)
    secret = load_service_environment(config).api_key
    headers = {_HEADER: secret.get_secret_value()} if secret else {}
    try:
        status, body = request(
            f"{url}/version", config.maintenance.version_timeout_s, headers=headers
        )
    except ConnectionRefusedError:
        return (LiveModel(f"no service answers at {shown}"),)
    except FAILURES as error:
        raise StorageError(f"{shown}/version did not answer: {name_failure(error)}") from error
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    found, missing = [], []
    for kind in list_kinds(config):
        live = _read_live(config, kind.client, content, shown) if status == 200 else None
        found += [live] if live is not None else []
        missing += [kind] if live is None else []
    if missing:
        key = "" if secret else "; API_KEY is not set"
        what = "" if missing[0].sole else f" as {missing[0].name} ({missing[0].client.path_field})"
        raise StorageError(f"{shown}/version answered {status} and not what it serves{what}{key}")
    known = {one.path for one in found}
    named = [config.resolve(path) for path in _named_models(content)]
    return (
        *found,
        *(LiveModel(f"{shown} names {path}", path) for path in named if path not in known),
    )


def _read_live(
    config: Config, section: ClientSection, content: Any, shown: str
) -> LiveModel | None:
    """What a `/version` says of one kind; None where it does not say."""
    if not isinstance(content, dict):
        return None
    found = read_version_answer(content, section)
    if not found.said:
        return None
    if found.empty:  # a service of one model that names none may have loaded one by another way
        none = LiveModel(f"{shown} has no model at {section.path_field}")
        return none if len(config.models) > 1 else None
    path = found.model_path
    where = config.resolve(path) if path and "\0" not in path else None
    return LiveModel(f"{shown} serves {path or found.sha256}", where, found.sha256)


def _named_models(content: Any) -> Iterator[str]:
    """Every text in an answer that looks like the path of a model."""
    if isinstance(content, str):
        if content.endswith(MODEL_SUFFIXES) and "\0" not in content and "://" not in content:
            yield content
    elif isinstance(content, dict | list):
        for one in content.values() if isinstance(content, dict) else content:
            yield from _named_models(one)


def _ask_tenant(config: Config, one: FoundLease) -> LiveModel:
    """Make sure that the service of a lease does not run. Our key is for addresses that the
    configuration names: whoever can write a lease could name any other.

    Raises:
        StorageError: it may run, and then nobody knows what it uses.
    """
    url, advice = one.lease.url(), "if that service is gone for good, remove the lease"
    if url is None:
        here = f"it listens on {one.lease.host} alone and cannot be asked from here"
        raise StorageError(f"{one.path}: not seen to be renewed; {here}; {advice}")
    try:
        request(f"{url}/health", config.maintenance.version_timeout_s)
    except ConnectionRefusedError:
        return LiveModel(f"no service answers at {url}; what {one.path} names is kept")
    except FAILURES as error:
        problem = f"{url} did not answer: {name_failure(error)}"
        raise StorageError(
            f"{one.path}: not seen to be renewed, and {problem}; {advice}"
        ) from error
    listed = "list it under maintenance.also_serving and remove the lease"
    raise StorageError(f"{one.path}: not seen to be renewed, although {url} answers; {listed}")
