"""Whose a file is: what root makes or replaces stays with the account that has to use it.

A new file or folder that root makes belongs to whom the folder around it belongs, who could have
made it as well; one that is replaced keeps its owner, group, mode and access list, whoever writes.
"""

import os
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE, S_ISREG
from typing import Literal

from opslib.core.accounts import account_name
from opslib.core.errors import StorageError

NEW_MODE = 0o644
Owner = Literal["kept", "demanded", "writer"]
_ACCESS = ("system.posix_acl_access", "security.selinux")


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make `folder` and those around it where they are missing. Raises `OSError` where one cannot
    be made."""
    missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for one in reversed(missing) if os.geteuid() == 0 else ():
        descriptor = os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            give_to_folders_owner(descriptor, one.parent)
        finally:
            os.close(descriptor)


def open_or_make(path: Path, flags: int) -> int:
    """Return a descriptor of `path`, which is made in its folder where it is missing. Raises
    `OSError` where it cannot be opened or made."""
    flags |= os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, NEW_MODE)
    except FileExistsError:
        return os.open(path, flags, NEW_MODE)
    give_to_folders_owner(descriptor, path.parent)
    return descriptor


def open_to_append(path: Path) -> int:
    """Return a descriptor that appends to `path`; as `open_or_make`, with the folders around it."""
    make_folder(path.parent)
    return open_or_make(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def give_to_folders_owner(descriptor: int, folder: Path) -> None:
    """Give what root has just made in `folder` to the account that `folder` belongs to."""
    if os.geteuid() == 0:
        owner = folder.stat()
        if owner.st_uid != 0:
            with suppress(OSError):  # a file server may not let this host's root do it
                os.fchown(descriptor, owner.st_uid, owner.st_gid)


def settle(descriptor: int, path: Path, mode: int | None, owner: Owner) -> None:
    """Give an open new file owner, group, mode and access list of the file `path`, whose name it is
    about to take; without one the owner that `path`'s folder implies. `mode`: None keeps that of
    the file before; a new file has 0644 then. `owner`: `kept` as far as this account may,
    `demanded`, or the `writer`, whatever was there. Raises `StorageError` where owner or group are
    demanded and cannot be kept."""
    before = _look_at(path)
    if owner != "writer":
        if before is None:
            give_to_folders_owner(descriptor, path.parent)
        else:
            _give_to_owner_before(descriptor, path, before, demanded=owner == "demanded")
    if mode is None:
        mode = NEW_MODE if before is None else S_IMODE(before.st_mode)
    os.fchmod(descriptor, mode)
    if before is not None and S_IMODE(before.st_mode) == mode:
        _copy_access(path, descriptor)


def _give_to_owner_before(
    descriptor: int, path: Path, before: os.stat_result, *, demanded: bool
) -> None:
    now = os.fstat(descriptor)
    if (before.st_uid, before.st_gid) == (now.st_uid, now.st_gid):
        return
    try:
        os.fchown(descriptor, before.st_uid, before.st_gid)
    except OSError as error:
        if demanded:
            name = account_name(before.st_uid)
            raise StorageError(
                f"cannot write {path}: it would no longer belong to {name} (group "
                f"{before.st_gid}); run this as {name} or as root"
            ) from error
        with suppress(OSError):
            os.fchown(descriptor, -1, before.st_gid)


def _look_at(path: Path) -> os.stat_result | None:
    """What is known of the file `path`; a link is replaced, and nothing of it kept."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found if S_ISREG(found.st_mode) else None


def _copy_access(path: Path, descriptor: int) -> None:
    for name in _ACCESS:
        with suppress(OSError):  # none, or a filesystem without them
            os.setxattr(descriptor, name, os.getxattr(path, name, follow_symlinks=False))
