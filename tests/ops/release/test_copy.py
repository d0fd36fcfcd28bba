"""H-2: a second copy of a release is verified where it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from opslib.core.errors import ParameterError, StorageError
from opslib.ops.release.build import ReleaseRecord
from opslib.ops.release.companions import checksum_path
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.restore import copy_release
from opslib.ops.release.verify import verify_release
from tests.ops.release.conftest import hidden_files, seal, visible
from tests.serving.conftest import Place


def test_a_copy_is_whole_and_made_once(shared: tuple[Place, ReleaseRecord], tmp_path: Path) -> None:
    place, record = shared
    folder = tmp_path / "disk" / "two"
    copied = copy_release(record.path, folder, config=place.config)
    assert copied.sha256 == record.sha256
    stem = record.path.name.removesuffix(".tar.gz")
    assert visible(folder) == [
        f"{stem}.manifest.json",
        f"{stem}.tar.gz",
        f"{stem}.tar.gz.sha256",
    ]
    assert verify_release(folder / record.path.name, config=place.config).models
    before = (folder / record.path.name).stat().st_ino
    copy_release(record.path, folder, config=place.config)
    assert (folder / record.path.name).stat().st_ino == before


def test_a_damaged_release_is_not_copied(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    damaged = tmp_path / "one" / shared[1].path.name
    seal(damaged, shared[1].path.read_bytes())
    damaged.write_bytes(shared[1].path.read_bytes()[:-1] + b"x")
    with pytest.raises(ReleaseError, match=r"its bytes are not those of its \.sha256"):
        copy_release(damaged, tmp_path / "two", config=shared[0].config)
    assert visible(tmp_path / "two") == []
    assert hidden_files(tmp_path / "two") == []


def test_a_copy_that_rotted_is_noticed(shared: tuple[Place, ReleaseRecord], tmp_path: Path) -> None:
    place, record = shared
    copy_release(record.path, tmp_path, config=place.config)
    copy = tmp_path / record.path.name
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    with pytest.raises(ReleaseError):
        copy_release(record.path, tmp_path, config=place.config)
    other = copy.read_bytes()
    seal(copy, other)
    with pytest.raises(ReleaseError, match="another release of the same name"):
        copy_release(record.path, tmp_path, config=place.config)


def test_the_same_folder_and_a_full_disk_are_refused(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, record = shared
    with pytest.raises(ParameterError, match="lies there already"):
        copy_release(record.path, record.path.parent, config=place.config)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(StorageError, match=r"a copy needs .* 10 B are free"):
        copy_release(record.path, tmp_path, config=place.config)
    assert not checksum_path(tmp_path / record.path.name).exists()
