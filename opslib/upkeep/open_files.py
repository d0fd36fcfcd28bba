"""Who writes a file right now: the kernel's own answer, and what `/proc` tells of the writers."""

import fcntl
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.02
_OURS = ("opslib.cli", "opslib.cli.main")  # the latter of earlier builds, which may still run
_ACCESS_MODE = 0o3


@dataclass(frozen=True)
class Writer:
    """A process that holds a file open for writing."""

    pid: int
    descriptor: int
    appends: bool
    command: tuple[str, ...]

    @property
    def reopens(self) -> bool:
        """Whether it is our service writing its own log, which it opens anew after a rename; what
        a shell redirected into the file is not."""
        ours = any(one in _OURS or Path(one).name == "pillops" for one in self.command)
        return ours and "serve" in self.command and self.descriptor > 2


def is_written(path: Path) -> bool:
    """Return whether any process has the file open for writing.

    Asks for a read lease, which the kernel refuses while there is a writer, whoever it is. Where
    leases are unknown, the processes this user can see decide; a file of another user counts as
    written.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        # Whoever opens it meanwhile makes the kernel signal this process: with one it ignores.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return bool(find_writers(path))
    else:
        return False
    finally:
        os.close(descriptor)


def await_release(path: Path, wait_s: float) -> bool:
    """Return whether nobody writes the file any more, waiting up to `wait_s` for it."""
    give_up = time.monotonic() + wait_s
    while is_written(path):
        if time.monotonic() >= give_up:
            return False
        time.sleep(_POLL_S)
    return True


def find_writers(path: Path) -> tuple[Writer, ...]:
    """Return the processes that write the file, as far as this user may see them."""
    wanted = path.stat()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for link in (folder / "fd").iterdir():
                if os.path.samestat(link.stat(), wanted):
                    found += _describe(folder, int(link.name))
    return tuple(found)


def _describe(folder: Path, descriptor: int) -> list[Writer]:
    for line in (folder / "fdinfo" / str(descriptor)).read_text().splitlines():
        if line.startswith("flags:"):
            flags = int(line.split()[1], 8)
            if flags & _ACCESS_MODE == os.O_RDONLY:
                return []
            parts = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            appends = bool(flags & os.O_APPEND)
            return [Writer(int(folder.name), descriptor, appends, tuple(filter(None, parts)))]
    return []
