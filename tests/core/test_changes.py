"""What is read, changed and written: one writer at a time, and it stays whose it was."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest

from opslib.core.changes import change_file, sole_writer
from opslib.core.errors import BusyError, StorageError
from opslib.core.files import hide_name, open_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_who_comes_second_is_told_which_process_is_at_work(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with (
        sole_writer(path),
        pytest.raises(BusyError, match=rf"a: (process {os.getpid()}|another process) is changing"),
    ):
        change_file(path, lambda _: b"x", wait_s=0.0)
    assert change_file(path, lambda _: b"x", wait_s=0.0)
    assert not change_file(path, lambda before: before or b"", wait_s=0.0)


def test_two_links_to_a_file_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/a")
    with sole_writer(tmp_path / "real/a"), pytest.raises(BusyError):
        change_file(tmp_path / "link", lambda _: b"x", wait_s=0.0)
    change_file(tmp_path / "link", lambda _: b"x")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["a"]


def test_a_change_by_somebody_who_waits_for_nobody_is_not_undone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def change(before: bytes | None) -> bytes:
        path.write_text("by an editor")
        return b"new"

    with pytest.raises(StorageError, match="changed by somebody else just now"):
        change_file(path, change)
    assert path.read_text() == "by an editor"
    assert names(tmp_path) == ["a"]


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    child = os.fork()
    if child == 0:
        with open_atomic(path) as file:
            file.write(b"secret")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    other, mine = hide_name(tmp_path / "b"), tmp_path / ".a.20261001"
    other.touch()
    mine.touch()
    assert len(names(tmp_path)) == 3
    change_file(path, lambda _: b"new")
    assert names(tmp_path) == sorted(["a", other.name, mine.name])


def test_mode_and_access_list_stay(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    entries = [(1, 6, -1), (2, 4, 54_321), (4, 4, -1), (16, 4, -1), (32, 0, -1)]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *one) for one in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", listed)
    except OSError:
        pytest.skip("this filesystem has no access lists")
    mode = path.stat().st_mode
    change_file(path, lambda _: b"new")
    assert path.stat().st_mode == mode
    assert os.getxattr(path, "system.posix_acl_access") == listed


def test_a_link_that_leads_in_a_circle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    path.symlink_to(path)
    with pytest.raises(StorageError, match=r"served\.json.*symbolic links"):
        change_file(path, lambda _before: b"new")
    assert path.is_symlink()
