"""The account that runs this: its name and its home, also where it has no entry of its own."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path


def account_name(uid: int | None = None) -> str:
    """Return the name of an account, by default of the one that runs this; its number where it
    has no name, as in a container that is started with any number."""
    number = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def account_home() -> Path:
    """Return the home of the account that runs this by its entry, not by `HOME`; `/` without."""
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/")


def ensure_home() -> None:
    """Give an account without an entry, such as a container's number, a home where it has none:
    libraries of notebooks look for one, and so do the processes that ours start."""
    if not os.environ.get("HOME") and account_home() == Path("/"):
        os.environ["HOME"] = tempfile.gettempdir()
