"""The account that runs this: its name and its home, also where it has no entry of its own."""

from __future__ import annotations

import os
import pwd
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
