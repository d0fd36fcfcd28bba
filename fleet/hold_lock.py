"""Hold FILE locked until the process PID ends: python hold_lock.py FILE PID.

Says `held` once it is, in one line what is the matter otherwise.
"""

import fcntl
import os
import select
import sys
from pathlib import Path


def main() -> int:
    """Take the lock, say so, wait for the end of the other process."""
    path, pid = Path(sys.argv[1]), int(sys.argv[2])
    player = os.pidfd_open(pid)
    try:
        locked = os.open(path, os.O_RDONLY)
        fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(1, b"another roll over this inventory is under way; no host was changed\n")
        return 1
    except OSError as error:
        os.write(1, f"cannot be locked: {error.strerror}\n".encode())
        return 1
    os.write(1, b"held\n")
    os.close(1)
    os.close(2)  # the reader's pipe must not stay open
    select.select([player], [], [])
    return 0


if __name__ == "__main__":
    sys.exit(main())
