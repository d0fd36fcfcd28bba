"""A lock works whatever becomes of the note that says who holds it."""

from __future__ import annotations

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
        assert (tmp_path / ".a.holder").exists()
    assert not (tmp_path / ".a.holder").exists()


def test_a_note_that_cannot_be_written_or_read_keeps_nobody_from_the_lock(tmp_path: Path) -> None:
    (tmp_path / ".a.holder").mkdir()
    with (
        hold_lock(tmp_path / ".a.lock", "the first"),
        pytest.raises(BusyError, match="is held by another process"),
        hold_lock(tmp_path / ".a.lock", "the second"),
    ):
        pass
