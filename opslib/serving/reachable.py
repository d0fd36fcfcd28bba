"""Which models must be kept: the roots. Deleting goes by reachability: what a link, the service,
its state or `.env` points at is a root, and so is the newest export; age only chooses among
others.

Services are asked with the standard library alone: `serving.client` costs a fifth of a second to
import, which a job that mostly finds nothing to do should not pay.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import StorageError
from opslib.core.kinds import MODEL_SUFFIXES, list_kinds, named_in_env_files
from opslib.core.secrets import show_address
from opslib.core.sections import ClientSection
from opslib.core.served import read_served_state
from opslib.core.web import FAILURES, name_failure, request
from opslib.inference.find_model import list_exports
from opslib.serving.keys import HEADER, check_sendable
from opslib.serving.leases import FoundLease, find_leases
from opslib.serving.live import normalise_url, read_version_answer


@dataclass(frozen=True)
class LiveModel:
    """The model that a running service says it serves; `note` tells what was asked and learnt."""

    note: str
    path: Path | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Root:
    """A model file that must be kept, links resolved, and the reason; `of_service` where a service
    uses it or would start with it."""

    path: Path
    why: str
    of_service: bool = False


def find_roots(config: Config, live: Iterable[LiveModel] = ()) -> tuple[Root, ...]:
    """Return the models in use: the newest of each kind, linked, served (as `live` says), served
    before, pinned, and what services of other experiments say in their leases. Where that is not
    known (a state, a lease or a file with pins cannot be read) it is an `InputError` or
    `ConfigError`."""
    found = []
    kinds = list_kinds(config)
    for kind in kinds:
        for path in list_exports(config.export_dir, kind)[:1]:
            found.append(Root(_real(path), f"the newest {'export' if kind.sole else kind.name}"))
    found += _linked(config)
    for one in live:
        if one.path is not None:
            found.append(Root(_real(one.path), "served now, as /version says", of_service=True))
    pins = [(kind.pin, path) for kind in kinds for path in kind.pins()]
    for name, path in dict.fromkeys([*pins, *named_in_env_files(config)]):
        found.append(Root(_real(path), f"{name} names it", of_service=True))
    state = read_served_state(config)
    if state is not None:
        found += [Root(_real(path), why, of_service=True) for path, why in state.needed()]
    for lease in find_leases(config):
        found += [Root(_real(path), why, of_service=True) for path, why in lease.models()]
    return tuple(found)


def _real(path: Path) -> Path:
    """The path with its links followed as far as they lead: one may dangle, or lead in a circle."""
    return Path(os.path.realpath(path))


def _linked(config: Config) -> list[Root]:
    cleaned = [(config.exp_dir / one).parent for one in config.maintenance.checkpoint_patterns]
    usual = (config.export_dir, config.exp_dir, config.exp_dir / "checkpoints")
    folders = dict.fromkeys((*usual, *cleaned))
    links = [path for folder in folders for path in folder.glob("*") if path.is_symlink()]
    # One that leads nowhere counts too: what it names may be hidden for its deletion just now.
    return [Root(_real(link), f"{link.name} points at it") for link in links]


def ask_services(config: Config) -> tuple[LiveModel, ...]:
    """Return what each service that may use our models says: those at `client.url` and
    `maintenance.also_serving`, and those whose leases are not renewed any more. One that is there
    but does not say is a `StorageError`, since then nobody knows what is in use, as is a lease
    (`InputError`) or `.env` (`ConfigError`) that cannot be read."""
    given = (config.client.url, *config.maintenance.also_serving)
    addresses = dict.fromkeys(map(normalise_url, given))
    said = [one for address in addresses for one in ask_version(config, address)]
    asked = {address.replace("//localhost:", "//127.0.0.1:") for address in addresses}
    for one in find_leases(config):
        if one.lease.url() not in asked and one.may_be_outdated():
            said.append(_ask_tenant(config, one))
    return tuple(said)


def ask_version(config: Config, url: str) -> tuple[LiveModel, ...]:
    """Return which models the service at `url` serves: one of each kind, and whatever else it names
    that may be a model; no service, no model. See `ask_services`."""
    shown = show_address(url)
    secret = load_service_environment(config).api_key
    headers = {HEADER: check_sendable(secret.get_secret_value())} if secret else {}
    timeout_s = config.maintenance.version_timeout_s
    try:
        status, body = request(f"{url}/version", timeout_s, headers=headers)
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
    named = set(map(config.resolve, _named_models(content))) - {one.path for one in found}
    return (*found, *(LiveModel(f"{shown} names {path}", path) for path in sorted(named)))


def _read_live(
    config: Config, section: ClientSection, content: Any, shown: str
) -> LiveModel | None:
    """What a `/version` says of one kind; None where it does not say."""
    found = read_version_answer(content, section) if isinstance(content, dict) else None
    if found is None or not found.said:
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
    """Refuse where the service of a lease may run: then nobody knows what it uses. Our key is for
    addresses that the configuration names: whoever can write a lease could name any other."""
    url, advice = one.lease.url(), "if that service is gone for good, remove the lease"
    if url is None:
        here = f"it listens on {one.lease.host} alone and cannot be asked from here"
        raise StorageError(f"{one.path}: not seen to be renewed; {here}; {advice}")
    try:
        request(f"{url}/health", config.maintenance.version_timeout_s)
    except ConnectionRefusedError:
        return LiveModel(f"no service answers at {url}; what {one.path} names is kept")
    except FAILURES as error:
        problem = f"and {url} did not answer: {name_failure(error)}; {advice}"
        raise StorageError(f"{one.path}: not seen to be renewed, {problem}") from error
    listed = "list it under maintenance.also_serving and remove the lease"
    raise StorageError(f"{one.path}: not seen to be renewed, although {url} answers; {listed}")
