"""Secrets are given by reference and never shown: resolving, finding and masking them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dotenv import dotenv_values

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
    found: dict[str, str | None] = dict(os.environ if environment is None else environment)
    values = {value for name, value in found.items() if is_secret_name(name) and value}
    if folder is not None:
        from_file = dotenv_values(folder / ".env")
        values |= {value for name, value in from_file.items() if is_secret_name(name) and value}
    return frozenset(value for value in values if len(value) >= MIN_SECRET_LENGTH)


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` with each secret replaced by asterisks, longest first, and so whatever stands
    before the host of an address in it, or is a token among its parameters."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    if "://" in text:
        text = _USER.sub(MASK, text)
    return _TOKEN.sub(rf"\1{MASK}", text) if "=" in text else text


def show_address(given: str) -> str:
    """Return an address, or what was given for one, as it may be shown: without user, password
    and tokens, however broken it is; all before the last `@` counts as a password."""
    scheme, found, rest = given.partition("://")
    before, at, after = (rest if found else given).rpartition("@")
    if at and (found or ":" in before):
        given = f"{scheme}://{MASK}@{after}" if found else f"{MASK}@{after}"
    return mask(given)


def resolve_reference(reference: str, folder: Path | None = None) -> str:
    """Return the value that `env:NAME` stands for, from the environment or `folder/.env`.

    Raises:
        ParameterError: it is no reference (the text itself is not repeated), or NAME is not set.
    """
    if not reference.startswith(REFERENCE_PREFIX):
        raise ParameterError("a secret is given by reference, as env:NAME, never by its value")
    name = reference.removeprefix(REFERENCE_PREFIX)
    value = os.environ.get(name)
    if not value and folder is not None:
        value = dotenv_values(folder / ".env").get(name)
    if not value:
        raise ParameterError(f"{reference}: {name} is set neither in the environment nor in .env")
    return value
