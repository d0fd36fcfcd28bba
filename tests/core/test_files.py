import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.errors import StorageError
from opslib.core.files import (
    copy_file,
    ensure_writable,
    folder_atomic,
    hide_name,
    is_temporary,
    link_atomic,
    open_atomic,
    reveal_name,
    sha256_file,
    sha256_tree,
    write_text_atomic,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    with open_atomic(target) as file:
        file.write(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert names(tmp_path) == ["a.json"]


def test_after_an_error_the_old_file_is_whole_and_nothing_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_text_atomic(target, "old")
    with pytest.raises(RuntimeError), open_atomic(target) as file:
        file.write(b"new")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_leaves_the_old_file_and_one_clear_line(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_text_atomic(target, "old")
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*a\.json"):
            write_text_atomic(target, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_killed_writer_leaves_no_visible_file(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from opslib.core.files import open_atomic\n"
        "with open_atomic(Path(sys.argv[1])) as file:\n"
        "    file.write(b'x' * 10_000_000); file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "a.bin"], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.bin").exists()


def test_what_a_killed_writer_left_is_known_by_its_name(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from opslib.core.files import folder_atomic, open_atomic\n"
        "with folder_atomic(Path(sys.argv[1]) / 'run'), open_atomic(Path(sys.argv[1]) / '.env'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    left = names(tmp_path)
    assert [reveal_name(name, "tmp") for name in left] == [".env", "run"]
    assert all(is_temporary(name) for name in left)


@pytest.mark.parametrize(
    "name",
    [
        ".best.pt.20260930",
        ".served.json.20261001",
        ".model.onnx.k3v9_abq",
        ".model.onnx.tmp",
        ".model.onnx.before_20261001.tmp",
        ".model.onnx.pillops-2026100120261001x.tmp",
        ".model.onnx.pillops.tmp",
        ".model.onnx.deleted",
        "model.onnx.pillops-0123456789abcdef.tmp",
        ".model.onnx.pillops-0123456789abcdef",
        ".pillops-0123456789abcdef.tmp",
    ],
)
def test_a_name_that_a_person_may_give_is_none_of_ours(name: str) -> None:
    assert not is_temporary(name)
    assert reveal_name(name, "deleted") is None


def test_a_hidden_name_says_what_it_stands_for_and_is_never_too_long(tmp_path: Path) -> None:
    path = tmp_path / "é\n.onnx"
    assert reveal_name(hide_name(path, "deleted").name, "deleted") == path.name
    assert not is_temporary(hide_name(path, "deleted").name)
    write_text_atomic(tmp_path / ("x" * 255), "1")
    assert names(tmp_path) == ["x" * 255]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with folder_atomic(tmp_path / "run") as aside:
        (aside / "x").write_text("1")
        assert not (tmp_path / "run").exists()
    assert names(tmp_path / "run") == ["x"]
    with pytest.raises(RuntimeError), folder_atomic(tmp_path / "other") as aside:
        (aside / "x").write_text("1")
        raise RuntimeError
    assert names(tmp_path) == ["run"]


def test_a_folder_that_exists_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/kept").touch()
    with pytest.raises(StorageError, match="already exists"), folder_atomic(tmp_path / "run"):
        pass
    assert names(tmp_path / "run") == ["kept"]
    assert names(tmp_path) == ["run"]


def test_a_link_is_moved_without_a_moment_without_one(tmp_path: Path) -> None:
    link = tmp_path / "latest.onnx"
    link_atomic(link, "a.onnx")
    link_atomic(link, "b.onnx")
    assert link.readlink() == Path("b.onnx")
    assert names(tmp_path) == ["latest.onnx"]


def test_writing_over_a_link_replaces_the_link_and_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("kept")
    (tmp_path / "link").symlink_to("real")
    write_text_atomic(tmp_path / "link", "new")
    assert (tmp_path / "real").read_text() == "kept"
    assert not (tmp_path / "link").is_symlink()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write into .*file/sub"):
        ensure_writable(tmp_path / "file/sub")


def test_digests_agree_with_hashlib_and_see_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 1000)
    assert sha256_file(path) == hashlib.sha256(b"abc" * 1000).hexdigest()
    other = tmp_path / "b"
    other.write_bytes(b"x")
    before = sha256_tree([path, other])
    assert before == sha256_tree([other, path])
    other.write_bytes(b"y")
    assert sha256_tree([path, other]) != before


def test_a_name_that_is_not_utf8_counts_in_the_digest(tmp_path: Path) -> None:
    digests = set()
    for name in (b"\xff.jpg", b"\xfe.jpg"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(b"x")
        digests.add(sha256_tree([path]))
    assert len(digests) == 2


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS])
def test_a_file_is_copied_where_the_kernel_does_not_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))
    copy_file(source, tmp_path / "by-kernel")
    monkeypatch.setattr(os, "copy_file_range", refuse)
    copy_file(source, tmp_path / "by-us")
    for name in ("by-kernel", "by-us"):
        assert (tmp_path / name).read_bytes() == source.read_bytes()
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        copy_file(source, tmp_path / "by-us")
