"""Doing something as another account: a fork that gives up root, without starting Python anew."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

SERVICE, GROUP = 54_321, 54_322  # an account without an entry, as in a container
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two accounts")


def as_account(work: Callable[[], object], uid: int = SERVICE, gid: int = GROUP) -> str:
    """Run `work` as the account and return the message of what it raised, or nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said
