"""The file layer: it sees all that a job does to files, and a dead process does nothing more."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opslib.core.files import folder_atomic, link_atomic, write_bytes_atomic
from opslib.core.locks import hold_lock
from tests.deletions.faults import FileLayer

DATE_S = 1_700_000_000.0


@pytest.fixture
def layer(tmp_path: Path) -> FileLayer:
    """A layer over an empty folder, where it is always the same moment."""
    root = tmp_path.resolve() / "root"
    root.mkdir()
    return FileLayer(root, lambda path: DATE_S)


def work(root: Path) -> None:
    """Something of every kind, tidied up in the end."""
    with hold_lock(root / "lock", "working"):
        try:
            write_bytes_atomic(root / "file", b"whole" * 1000)
            with folder_atomic(root / "folder") as folder:
                (folder / "inside").write_text("text")
                os.link(root / "file", folder / "linked")
            link_atomic(root / "link", "file")
            (root / "file").rename(root / "renamed")
            with (root / "log").open("a") as log:
                log.write("line\n")
                log.flush()
            os.truncate(root / "log", 1)
        finally:
            shutil.rmtree(root / "folder")
            (root / "renamed").unlink()


def tree(root: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(one.relative_to(root)): one.read_bytes() for one in root.rglob("*") if one.is_file()
    }


def test_it_sees_each_operation_that_the_interpreter_saw() -> None:
    command = [sys.executable, "-m", "tests.deletions.audited"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_nothing_happens_after_a_death_and_the_locks_are_free(layer: FileLayer) -> None:
    with layer.process() as calm:
        work(layer.root)
    kinds = {kind for kind, _ in calm.done}
    wanted = "bytes chmod create link mkdir rename replace rmdir symlink truncate unlink"
    assert kinds >= set(wanted.split())
    for number in range(len(calm.done)):
        shutil.rmtree(layer.root)
        layer.root.mkdir()
        with layer.process(dies_at=number) as life:
            work(layer.root)
            pytest.fail("it lives")
        assert life.dead
        assert len(life.done) == number + 1, "the last one is its death"
        with hold_lock(layer.root / "lock", "trying"):
            pass


def test_what_lay_in_a_buffer_is_lost_and_a_torn_write_leaves_half(layer: FileLayer) -> None:
    def write() -> None:
        with (layer.root / "file").open("wb") as file:
            file.write(b"0123456789")

    left = []
    for torn in (False, True):
        with layer.process(dies_at=1, torn=torn) as life:
            write()
        assert life.dead
        left.append((layer.root / "file").read_bytes())
    assert left == [b"", b"01234"]


def test_a_dead_process_leaves_what_was_there_when_it_died(layer: FileLayer) -> None:
    with layer.process() as calm:
        write_bytes_atomic(layer.root / "file", b"old")
    for number in range(len(calm.done)):
        with layer.process(dies_at=number):
            write_bytes_atomic(layer.root / "file", b"new")
        assert tree(layer.root)["file"] == b"old"
    hidden = [name for name in tree(layer.root) if name[0] == "."]
    assert len(hidden) > 1, "nothing tidied up"


@pytest.mark.parametrize(
    ("operation", "works"),
    [
        (lambda root: (root / "new").write_bytes(b"x"), False),
        (lambda root: (root / "there").write_bytes(b"x"), False),
        (lambda root: (root / "new").mkdir(), False),
        (lambda root: (root / "new").symlink_to("there"), False),
        (lambda root: (root / "there").rename(root / "new"), True),
        (lambda root: (root / "there").unlink(), True),
        (lambda root: (root / "there").read_bytes(), True),
    ],
)
def test_a_full_disk_gives_nothing_new(
    layer: FileLayer, operation: Callable[[Path], object], works: bool
) -> None:
    (layer.root / "there").write_bytes(b"")
    with layer.process(full_from=0):
        if works:
            operation(layer.root)
        else:
            with pytest.raises(OSError, match="No space") as caught:
                operation(layer.root)
            assert caught.value.errno == errno.ENOSPC


def test_files_are_dated_by_the_clock_that_was_given(layer: FileLayer) -> None:
    with layer.process():
        write_bytes_atomic(layer.root / "file", b"data")
    assert (layer.root / "file").stat().st_mtime == DATE_S


def test_other_folders_are_left_alone(layer: FileLayer, tmp_path: Path) -> None:
    with layer.process(dies_at=0) as life:
        (tmp_path / "outside").write_text("text")
    assert not life.dead
    assert not life.done
