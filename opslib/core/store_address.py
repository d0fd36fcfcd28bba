"""The address of a folder of objects that several hosts share, and what may stand in it.

`s3://bucket/prefix`, `sftp://user@host:port/folder` or `file:///folder`. No credentials: a user's
name is none, a password is.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from opslib.core.errors import ParameterError
from opslib.core.secrets import show_address

WANTED = "expected s3://bucket/prefix, sftp://host/folder or file:///folder"
_BEGIN = re.compile(r"(?:s3|sftp|file):|.*://", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOST = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)


@dataclass(frozen=True)
class SshHost:
    """A host as `ssh` is told of it; what is None, its configuration says."""

    name: str
    user: str | None = None
    port: int | None = None


def is_address(text: str) -> bool:
    """Return whether `text` is meant as the address of a store, not as a path: `s3:/bucket` too."""
    return _BEGIN.match(text) is not None


def check_store_url(url: str) -> str:
    """Return the address of a store without a slash at its end. Raises `ParameterError` where it
    is none, or holds credentials, which are then not repeated."""
    shown = show_address(url)
    try:
        parts = urlsplit(url)
        has_user, has_password = parts.username is not None, parts.password is not None
        _ = parts.port  # raises where it is none
    except ValueError as error:
        raise ParameterError(f"{shown}: {error}; {WANTED}") from None
    if has_password or (has_user and parts.scheme != "sftp"):
        raise ParameterError(
            f"{shown}: credentials stand in it; expected them in the environment or a profile"
        )
    path = parts.path if parts.scheme == "s3" else unquote(parts.path)
    right = {
        "s3": bool(_BUCKET.fullmatch(parts.netloc)),
        "sftp": bool(_HOST.fullmatch(parts.netloc)) and len(path) > 1,
        "file": not parts.netloc and path.startswith("/") and len(path) > 1,
    }
    wrong = {"..", "."} & set(path.split("/")) or "//" in path or not url.isprintable()
    if not right.get(parts.scheme) or wrong or "\0" in path or parts.query or parts.fragment:
        raise ParameterError(f"{shown}: is no address of a store; {WANTED}")
    return url.rstrip("/")


def read_ssh_host(netloc: str) -> SshHost:
    """Return the host that stands in a checked address, as `user@host:port`."""
    found = _HOST.fullmatch(netloc)
    if found is None:
        raise ParameterError(f"{show_address(netloc)}: is no host; expected user@host:port")
    port = int(found["port"]) if found["port"] else None
    return SshHost(found["host"].strip("[]"), found["user"], port)
