"""H-2: a restored release is a fresh folder that the service may serve from, all of it checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.errors import BusyError, ModelError, StorageError
from opslib.core.files import hide_name
from opslib.core.locks import hold_lock
from opslib.core.models import find_model_files
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.restore import LOCK_NAME, is_servable, restore_release
from opslib.ops.release.scratch import scratch_folder
from opslib.serving.own_copy import confine_path
from tests.ops.release.conftest import QUICK, answer_wrongly, members_of
from tests.serving.conftest import Place


def test_a_restored_release_is_what_was_released(shared: tuple[Place, ReleaseRecord]) -> None:
    place, record = shared
    done = restore_release(record.path, config=place.config)
    assert done.folder == place.config.restore_dir / record.path.name.removesuffix(".tar.gz")
    for name, data in members_of(record.path).items():
        assert (done.folder / name).read_bytes() == data
    assert done.model == done.folder / "export" / "model-b.onnx"
    assert find_model_files(done.model).digest() == find_model_files(place.second).digest()
    link = done.folder / "export" / "latest.onnx"
    assert link.is_symlink()
    assert str(link.readlink()) == "model-b.onnx"
    assert {model.golden_images for model in done.checks} == {8}
    allowed = (place.config.restore_dir.resolve(),)
    assert confine_path(str(done.model), allowed, place.export) == done.model.resolve()
    assert is_servable(place.config, done.model)


def test_a_folder_that_is_there_is_never_written_into(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("there", "link"):
        with pytest.raises(StorageError, match="is there already"):
            restore_release(shared[1].path, tmp_path / name, config=shared[0].config)
    assert not list((tmp_path / "there").iterdir())
    assert not is_servable(shared[0].config, tmp_path / "there")


def test_a_release_whose_model_does_not_answer_rightly_leaves_no_folder(
    place: Place, tmp_path: Path
) -> None:
    answer_wrongly(place)
    record = build_release(place.config, QUICK)
    with pytest.raises(ReleaseError, match=r"export/model-b.onnx: stage golden: export/model-b"):
        restore_release(record.path, tmp_path / "out", config=place.config)
    assert not (tmp_path / "out").exists()
    assert restore_release(record.path, tmp_path / "out", config=place.config, load_models=False)


def test_a_full_disk_leaves_no_folder(place: Place, tmp_path: Path) -> None:
    record = build_release(place.config, QUICK)
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from opslib.core.config import load_config\n"
        "from opslib.core.errors import StorageError\n"
        "from opslib.ops.release.restore import restore_release\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))\n"
        "config = load_config(sys.argv[1], {})\n"
        "try:\n    restore_release(Path(sys.argv[2]), Path(sys.argv[3]), config=config)\n"
        "except StorageError as error:\n    print(error)\n"
    )
    out = tmp_path / "in" / "out"
    answer = subprocess.run(
        [sys.executable, "-c", code, place.config_path, record.path, out],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in answer.stdout
    assert list(out.parent.iterdir()) == []


def test_what_a_killed_restore_left_is_removed_by_the_next(place: Place, tmp_path: Path) -> None:
    record = build_release(place.config, QUICK)
    name = record.path.name.removesuffix(".tar.gz")
    left = hide_name(place.config.restore_dir / name)
    foreign = [place.config.restore_dir / one for one in (".release-notes", f".{name}.20261001")]
    for folder in (left / "export", *foreign):
        folder.mkdir(parents=True)
    restore_release(record.path, config=place.config, load_models=False)
    assert not left.exists()
    assert all(folder.exists() for folder in foreign)


def test_two_restores_into_one_place_do_not_meet(place: Place) -> None:
    record = build_release(place.config, QUICK)
    with (
        hold_lock(place.config.restore_dir / LOCK_NAME, "the other restore"),
        pytest.raises(BusyError, match="the other restore"),
    ):
        restore_release(record.path, config=place.config)


def test_a_scratch_folder_goes_with_its_owner_however_that_ends(tmp_path: Path) -> None:
    with pytest.raises(ModelError), scratch_folder(tmp_path, "verify") as folder:
        (folder / "a").write_text("x")
        raise ModelError("no")
    assert not list(tmp_path.iterdir())
    orphan, young = (hide_name(tmp_path / "verify") for _ in range(2))
    theirs = tmp_path / ".verify-old"
    for one in (orphan, young, theirs):
        one.mkdir()
    for one in (orphan, theirs):
        os.utime(one, (1, 1))
    with scratch_folder(tmp_path, "verify") as folder:
        os.utime(folder, (1, 1))
        with scratch_folder(tmp_path, "verify"):
            assert folder.exists()
        assert not orphan.exists()
        assert young.exists()
        assert theirs.exists()


def test_a_folder_that_no_model_could_be_loaded_from_is_no_fault_of_the_release(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="no UTF-8 name"):
        restore_release(shared[1].path, tmp_path / "a\udcff", config=shared[0].config)
    assert list(tmp_path.iterdir()) == []
