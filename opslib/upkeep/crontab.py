"""The user's crontab: read, one marked block in it replaced, the rest kept byte for byte.

As it was before each change it is kept in dated files, of which the newest stay.
"""

import os
import re
import shutil
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from opslib.core.errors import BusyError, InputError, OpsError, UnavailableError
from opslib.core.files import ensure_writable, write_bytes_atomic
from opslib.core.formatting import stamp
from opslib.core.locks import hold_lock, host_lock_path
from opslib.core.plans import Action
from opslib.upkeep.gzip_logs import free_name

PROGRAM = "crontab"
LOCK = "crontab"
_MARKER = re.compile(r"# (>>>|<<<) pillops schedule of (.+) \1")
KEPT = 10  # backups
_BACKUP = re.compile(r"crontab-(\d{8}-\d{6})(?:-(\d+))?\.bak")
_DEADLINE_S = 30.0
_LOCK_WAIT_S = 30.0
_NO_TABLE = 1
_NONE_SAID = re.compile(r"(crontab: )?no crontab for \S+")


@dataclass(frozen=True)
class Parts:
    """A crontab taken apart: what stands before the block, the block or None, what follows."""

    before: str
    block: str | None
    after: str

    def with_block(self, block: str) -> str:
        """Return the crontab with `block` where the old one stood, else at its end."""
        gap = "\n" if self.block is None and self.before and self.before[-1] != "\n" else ""
        return f"{self.before}{gap}{block}{self.after}"

    def without_block(self) -> str:
        """Return the crontab without the block."""
        return self.before + self.after


def make_block(owner: str, lines: list[str]) -> str:
    """Return `lines` between the markers of `owner`, which a person can read."""
    begin, end = (f"# {sign} pillops schedule of {owner} {sign}" for sign in (">>>", "<<<"))
    return "\n".join([begin, *lines, end, ""])


def take_apart(text: str, owner: str) -> Parts:
    """Return the crontab `text` around the block of `owner`; `InputError` where a marker is
    missing, stands twice or inside another block."""
    opened, begin, found = "", 0, Parts(text, None, "")
    seen: set[str] = set()
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        marker = _MARKER.fullmatch(line.rstrip("\r\n"))
        if marker and marker[1] == ">>>":
            if opened:
                raise _damage(number, f"the block of {opened} has no end before this begins")
            if marker[2] in seen:
                raise _damage(number, f"a second block of {marker[2]}")
            opened, begin = marker[2], number
            seen.add(opened)
        elif marker:
            if opened != marker[2]:
                raise _damage(number, f"the end of a block of {marker[2]} that does not begin")
            if opened == owner:
                pieces = lines[:begin], lines[begin : number + 1], lines[number + 1 :]
                found = Parts(*map("".join, pieces))
            opened = ""
    if opened:
        raise _damage(begin, f"the block of {opened} begins here and has no end")
    return found


def escape_command(command: str) -> str:
    """Return a shell command as it must stand in a crontab, where a bare `%` ends the command."""
    return command.replace("%", r"\%")


def hold_crontab() -> AbstractContextManager[None]:
    """Return the lock that everything holds which changes this account's crontab."""
    return hold_lock(host_lock_path(LOCK), "changing the crontab", wait_s=_LOCK_WAIT_S)


def read_crontab() -> str:
    """Return the calling user's crontab; bytes that are not UTF-8 survive a round trip.

    Only a program that ends as it does where there is no table, and says so, means an empty one.
    Raises `UnavailableError` where there is no `crontab` program; `OpsError` where it refuses, or
    dies.
    """
    answer = _call("-l")
    if answer.returncode == 0:
        return answer.stdout.decode("utf-8", "surrogateescape")
    said = _one_line(answer.stderr)
    if answer.returncode == _NO_TABLE and not answer.stdout and _NONE_SAID.fullmatch(said):
        return ""
    raise OpsError(f"crontab -l: {_ending(answer.returncode)}: {said or 'it said nothing'}")


def replace_crontab(old: str, new: str, backups: Path) -> None:
    """Make `new` of the crontab `old`, which is kept as a file in the folder `backups` first; see
    that it was written. The caller holds `hold_crontab`.

    Raises:
        BusyError: the crontab is no longer `old`.
        StorageError: the backup cannot be written; nothing was changed.
        InputError: cron refuses the text; the old one stays.
        OpsError: it does not read back as it was written.
    """
    if read_crontab() != old:
        raise BusyError("the crontab was changed by somebody else just now; run it again")
    kept = f"; the one before is {keep_backup(backups, old)}" if old else ""
    answer = _call("-", _encode(new))
    now = read_crontab()
    if now == new:
        return
    if answer.returncode != 0 and now == old:
        why = f"{_ending(answer.returncode)}: {_one_line(answer.stderr)}"
        raise InputError(f"crontab refuses the new table: {why}")
    raise OpsError(f"the crontab does not read back as it was written; see `crontab -l`{kept}")


def keep_backup(folder: Path, text: str) -> Path:
    """Write a crontab to a new dated file in `folder`, which its owner alone may read, also where
    the folder is another account's; return the file."""
    backup = free_name(ensure_writable(folder), f"crontab-{stamp()}", ".bak")
    write_bytes_atomic(backup, _encode(text), mode=0o600, owner="writer")
    return backup


def plan_backups(folder: Path, now: datetime) -> tuple[Action, ...]:
    """Return the steps that delete all but the newest ten backups in `folder`.

    One that is dated after `now` was written by a clock that was ahead: it is neither counted nor
    deleted.
    """
    found = []
    for path in folder.glob("crontab-*.bak"):
        match = _BACKUP.fullmatch(path.name)
        if match and match[1] <= stamp(now) and path.is_file() and not path.is_symlink():
            found.append((match[1], int(match[2] or 1), path))
    why = f"older than the newest {KEPT} backups of the crontab"
    return tuple(
        Action("delete", path.name, why, partial(path.unlink, missing_ok=True), path.stat().st_size)
        for _, _, path in sorted(found)[:-KEPT]
    )


def _call(argument: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = shutil.which(PROGRAM)
    if program is None:
        raise UnavailableError(
            f"{PROGRAM}: no such program here; install cron (apt-get install cron), "
            "or see docs/OPS_CHECKLIST.md#schedules for a host without it"
        )
    try:
        return subprocess.run(
            [program, argument],
            input=given,
            capture_output=True,
            check=False,
            timeout=_DEADLINE_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise OpsError(f"crontab {argument}: no answer within {_DEADLINE_S:g} s") from error


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _ending(code: int) -> str:
    return f"ended with {code}" if code >= 0 else f"was ended by signal {-code}"


def _damage(index: int, what: str) -> InputError:
    told = f"{what}; repair it with `crontab -e`, nothing was changed"
    return InputError(f"the crontab's line {index + 1}: {told}")


def _one_line(raw: bytes) -> str:
    return " ".join(raw.decode("utf-8", "replace").split())
