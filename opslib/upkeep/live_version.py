"""What running services say they serve, asked with the standard library alone.

`opslib.serving.client` does the same with everything a switch needs; it costs a fifth of a second
to import, which a job that mostly finds nothing to do should not pay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import StorageError
from opslib.core.secrets import show_address
from opslib.serving.leases import FoundLease, find_leases
from opslib.serving.reachable import LiveModel
from opslib.upkeep.web import FAILURES, name_failure, request

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
        map(_spell_out, (config.client.url, *config.maintenance.also_serving))
    )
    said = [ask_version(config, address) for address in addresses]
    for one in find_leases(config):
        if _meet(one.lease.url(), addresses) or not one.may_be_outdated():
            continue
        said.append(_ask_tenant(config, one))
    return tuple(said)


def ask_version(config: Config, url: str) -> LiveModel:
    """Return which model the service at `url` serves; no service, no model.

    Raises:
        StorageError: a service is there but does not say: then nobody knows what is in use.
        ConfigError: `.env` is unreadable.
    """
    section, shown = config.client, show_address(url)
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


def _meet(url: str | None, addresses: Iterable[str]) -> bool:
    return url is not None and url in {
        address.replace("//localhost:", "//127.0.0.1:") for address in addresses
    }


def _spell_out(address: str) -> str:
    plain = address.rstrip("/")
    return plain if "://" in plain else f"http://{plain}"
