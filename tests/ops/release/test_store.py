"""H-2: the store lists what there is, whole or broken, and finds a release by name or path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from opslib.core.errors import InputError, ParameterError
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.companions import manifest_path
from opslib.ops.release.store import (
    PINS_NAME,
    find_release,
    list_releases,
    pin_release,
    read_pins,
)
from opslib.ops.release.verify import read_manifest
from tests.ops.release.conftest import QUICK
from tests.serving.conftest import Place


def test_broken_and_foreign_files_are_listed_with_what_is_wrong(place: Place) -> None:
    good = build_release(place.config, QUICK)
    folder = place.config.releases_dir
    (folder / "backup.tar.gz").write_bytes(b"x")
    (folder / "release-20200101-000000-abc1234.tar.gz").write_bytes(b"")
    (folder / "release-20200102-000000-nogit.tar.gz").write_bytes(b"junk")
    (folder / "release-20209999-000000-nogit.tar.gz").write_bytes(b"junk")
    (folder / "release-20200103-000000-nogit.tar.gz").mkdir()
    (folder / ".release-20200101-000000-nogit.tar.gz.tmp").write_bytes(b"part")
    (folder / "notes.txt").write_text("hello")
    found = {one.name: one.problem for one in list_releases(place.config)}
    assert found.pop(good.path.name.removesuffix(".tar.gz")) is None
    assert found == {
        "backup": "not named as a release is: release-<UTC>-<sha>.tar.gz",
        "release-20209999-000000-nogit": "not named as a release is: release-<UTC>-<sha>.tar.gz",
        "release-20200101-000000-abc1234": "empty",
        "release-20200102-000000-nogit": "release-20200102-000000-nogit.tar.gz.sha256 is missing",
        "release-20200103-000000-nogit": "no regular file",
    }
    assert list_releases(place.config)[0].path == good.path


def test_an_empty_store_is_empty(place: Place) -> None:
    assert list_releases(place.config) == ()
    with pytest.raises(ParameterError, match=r"no release; make one with `pillops release create`"):
        find_release(place.config)


def test_a_release_is_found_by_name_file_name_or_path(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    place, record = shared
    name = record.path.name.removesuffix(".tar.gz")
    for text in (name, record.path.name, str(record.path), record.path, None, "latest"):
        assert find_release(place.config, text).name == name
    with pytest.raises(ParameterError, match=f"nothing: no such release; in .*: {name}"):
        find_release(place.config, "nothing")
    elsewhere = tmp_path / record.path.name
    elsewhere.write_bytes(record.path.read_bytes())
    assert find_release(place.config, elsewhere).path == elsewhere


def test_a_path_elsewhere_is_not_taken_for_the_stores_own_of_that_name(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    copy = tmp_path / shared[1].path.name
    copy.write_bytes(b"other")
    assert find_release(shared[0].config, str(copy)).size_bytes == 5


def test_the_manifest_comes_from_the_copy_or_from_the_archive(
    shared: tuple[Place, ReleaseRecord],
) -> None:
    place, record = shared
    stored, copy = find_release(place.config), manifest_path(record.path)
    text = copy.read_bytes()
    assert stored.read_copy() == stored.manifest()
    for spoilt in (b"{}", text.replace(b"metrics.json", b"metrics.jsom")):
        copy.write_bytes(spoilt)
        assert stored.read_copy() is None
        assert stored.manifest().content_id == record.content_id
    copy.write_bytes(text)


def test_pins_are_kept_and_taken_back(place: Place) -> None:
    name = build_release(place.config, QUICK).path.name.removesuffix(".tar.gz")
    assert pin_release(place.config, name).pinned
    assert pin_release(place.config, name).pinned
    assert read_pins(place.config).names == (name,)
    assert not pin_release(place.config, name, pinned=False).pinned
    with pytest.raises(ParameterError, match="no such release"):
        pin_release(place.config, "other")


def test_unreadable_pins_pin_everything(place: Place) -> None:
    name = build_release(place.config, QUICK).path.name.removesuffix(".tar.gz")
    (place.config.releases_dir / PINS_NAME).write_text("{")
    (stored,) = list_releases(place.config)
    assert stored.pinned
    assert stored.problem == "pins.json cannot be read: it counts as pinned"
    with pytest.raises(InputError, match=r"pins.json: not a release-pins/1 record"):
        pin_release(place.config, name)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00", "", "2"])
def test_a_copy_of_the_manifest_that_tells_another_time_is_foreign(
    moment: str, shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    archive = Path(shutil.copy(shared[1].path, tmp_path))
    manifest = read_manifest(archive).model_copy(update={"released_at_utc": moment})
    manifest_path(archive).write_text(manifest.to_json())
    assert find_release(shared[0].config, archive).read_copy() is None
