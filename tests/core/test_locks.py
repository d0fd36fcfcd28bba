"""A lock works whatever becomes of the note that says who holds it."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from opslib.core.errors import BusyError
from opslib.core.locks import hold_lock


def test_who_holds_a_lock_is_told_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / ".a.lock"
    with (
        hold_lock(path, "the first"),
        pytest.raises(BusyError, match=r"the second: the lock is held by the first \(pid"),
        hold_lock(path, "the second"),
    ):
        pass
    with hold_lock(path, "the third"):
        assert path.read_text().startswith("the third (pid")
    assert path.read_text() == ""


def test_a_note_that_cannot_be_written_keeps_nobody_from_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".a.lock"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with (
            hold_lock(path, "the first"),
            pytest.raises(BusyError, match="is held by another process"),
            hold_lock(path, "the second"),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
