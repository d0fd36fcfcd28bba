"""The account that runs this: name, home and own folder, also where it has no entry anywhere."""

import os
import pwd
import tempfile
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE, S_ISDIR

from opslib.core.errors import StorageError, storage_errors


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
    """Give an account without an entry, such as a container's number, a home where it has none
    (containers say `/`): libraries of notebooks look for one, and so do the processes that ours
    start. Raises `StorageError`, see `make_own_folder`."""
    if os.environ.get("HOME") in (None, "", "/") and account_home() == Path("/"):
        os.environ["HOME"] = str(make_own_folder("settings", "HOME"))


def make_own_folder(what: str, variable: str) -> Path:
    """Return the account's folder in the shared temporary one, where anybody may have made it
    beforehand. `what`: what has to lie in a folder of one's own, such as `locks`. `variable`: what
    names another folder. Raises `StorageError` where it is not this account's alone."""
    uid = os.geteuid()
    with storage_errors(f"make a folder for {what}"):  # a full disk leaves no temporary one
        folder = Path(tempfile.gettempdir()) / f"pillops-{uid}"
    with storage_errors(f"create {folder}"):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    if not S_ISDIR(found.st_mode):
        problem = "it is no folder"
    elif found.st_uid != uid:
        problem = f"it belongs to {account_name(found.st_uid)}"
    elif S_IMODE(found.st_mode) & 0o077:
        problem = f"it is open to others (mode {S_IMODE(found.st_mode):o})"
    else:
        return folder
    raise StorageError(
        f"{folder}: not a folder of {account_name()} alone, as {what} need: {problem}; "
        f"remove it, or name another with {variable}"
    )
