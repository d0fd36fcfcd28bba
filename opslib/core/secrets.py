"""Secrets are given by reference and never shown: resolving, finding and masking them."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from opslib.core.env_file import ENV_NAME, read_env_file
from opslib.core.errors import ParameterError

MASK = "********"
REFERENCE_PREFIX = "env:"
MIN_SECRET_LENGTH = 8
_SECRET_NAME = re.compile(r"(API_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)
# What stands before a host: up to the last @ before the path.
_USER = re.compile(r"""(?<=://)[^\s/?\#"'<>]+(?=@)""")
_TOKEN = re.compile(
    r"""([?&](?:amp;)?(?:[\w.-]*(?:token|secret|passw(?:or)?d|signature|credential|api_?key)|sig|key|pwd)=)"""
    r"""[^\s&;\#"'<>]+""",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Return whether a variable of this name holds a secret."""
    return bool(_SECRET_NAME.search(name))


def live_secrets(
    folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> frozenset[str]:
    """Return the values of all secret-named variables of `folder/.env` and the environment.

    Values shorter than eight characters are left out: masking them would garble the text.
    """
    own = os.environ if environment is None else environment
    from_file = read_env_file(folder / ENV_NAME) if folder is not None else {}
    named = [*own.items(), *from_file.items()]
    found = {value for name, value in named if is_secret_name(name)}
    return frozenset(value for value in found if len(value) >= MIN_SECRET_LENGTH)


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` with each secret replaced by asterisks, longest first, and so whatever stands
    before the host of an address in it (a user's name alone stays in one of `ssh` or `sftp`), or is
    a token among its parameters."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    if "://" in text:
        text = _USER.sub(_hide_user, text)
    return _TOKEN.sub(rf"\1{MASK}", text) if "=" in text else text


def _hide_user(found: re.Match[str]) -> str:
    """A user and a password; over SSH, where keys are what counts, a name alone is no secret."""
    by_name = found.string.endswith(("ssh", "sftp"), 0, found.start() - len("://"))
    return found[0] if by_name and ":" not in found[0] else MASK


def show_address(given: str) -> str:
    """Return an address, or what was given for one, as it may be shown: without user, password
    and tokens, however broken it is; all before the last `@` counts as a password."""
    scheme, found, rest = given.partition("://")
    before, at, after = (rest if found else given).rpartition("@")
    if at and (found or ":" in before):
        given = f"{scheme}://{MASK}@{after}" if found else f"{MASK}@{after}"
    return mask(given)


def split_http(address: str) -> SplitResult:
    """Return the parts of an address that could be asked. Raises `ValueError` where it is not
    http://host… or https://host…."""
    parts = urlsplit(address)
    (parts.hostname or "").encode("idna")  # refuses what no resolver takes
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("no http address")
    return parts


def resolve_reference(reference: str, folder: Path | None = None) -> str:
    """Return the value that `env:NAME` stands for, from the environment or `folder/.env`. Raises
    `ParameterError` where it is no reference (the text itself is not repeated), or NAME is not
    set."""
    if not reference.startswith(REFERENCE_PREFIX):
        raise ParameterError("a secret is given by reference, as env:NAME, never by its value")
    name = reference.removeprefix(REFERENCE_PREFIX)
    value = os.environ.get(name)
    if not value and folder is not None:
        value = read_env_file(folder / ENV_NAME).get(name)
    if not value:
        raise ParameterError(f"{reference}: {name} is set neither in the environment nor in .env")
    return value
