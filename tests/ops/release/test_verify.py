"""H-2: every byte counts: whatever is changed in an archive or beside it, verifying fails."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from opslib.core.errors import InputError, OpsError
from opslib.inference.find_model import find_card
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.companions import checksum_path, manifest_path
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.store import find_release
from opslib.ops.release.verify import SCRATCH_NAME, read_manifest, verify_release
from tests.ops.release.conftest import QUICK, grow_sidecar, make_experiment, members_of
from tests.serving.conftest import Place
from tests.turns import looped, turns


def copy_of(record: ReleaseRecord, folder: Path) -> Path:
    """A copy of a release with everything that belongs to it."""
    for path in (record.path, checksum_path(record.path), manifest_path(record.path)):
        shutil.copy(path, folder / path.name)
    return folder / record.path.name


def test_a_sound_release_is_read_and_its_models_answer(
    shared: tuple[Place, ReleaseRecord],
) -> None:
    place, made = shared
    record = verify_release(made.path, config=place.config)
    assert (record.sha256, record.content_id) == (made.sha256, made.content_id)
    assert record.files == made.files
    assert [model.stages[-1] for model in record.models] == ["golden", "golden"]
    assert all(model.golden_images == 8 for model in record.models)
    assert not list(place.config.releases_dir.glob(f".{SCRATCH_NAME}.*"))


@looped
def test_one_changed_byte_at_any_place_is_noticed(tmp_path: Path) -> None:
    place = make_experiment(tmp_path / "place")
    grow_sidecar(place, 2 << 20)
    record = build_release(place.config, QUICK)
    archive = copy_of(record, tmp_path)
    data, members = archive.read_bytes(), list(members_of(archive))
    rng = random.Random(11)
    named = 0
    anywhere = [rng.randrange(len(data)) for _ in range(turns(20, 200))]
    for position in (0, 4, 9, 15, len(data) - 1, *anywhere):
        changed = bytearray(data)
        changed[position] ^= 1 << rng.randrange(8)
        archive.write_bytes(changed)
        with pytest.raises(ReleaseError) as caught:
            verify_release(archive, config=place.config, load_models=False)
        said = str(caught.value)
        assert archive.name in said
        named += any(member in said for member in members) or f"{archive.name}.sha256" in said
    assert named >= turns(15, 195)


def test_one_changed_byte_in_the_checksum_is_noticed_and_the_file_named(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    place, record = shared
    archive = copy_of(record, tmp_path)
    text = checksum_path(archive).read_bytes()
    rng = random.Random(12)
    for position in range(len(text)):
        changed = bytearray(text)
        changed[position] ^= 1 << rng.randrange(8)
        checksum_path(archive).write_bytes(changed)
        with pytest.raises(ReleaseError, match=r"\.tar\.gz\.sha256: "):
            verify_release(archive, config=place.config, load_models=False)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_an_archive_that_ends_early_is_noticed(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path, share: float
) -> None:
    archive = copy_of(shared[1], tmp_path)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ReleaseError):
        verify_release(archive, config=shared[0].config, load_models=False)
    archive.write_bytes(data + b"\0")
    with pytest.raises(ReleaseError):
        verify_release(archive, config=shared[0].config, load_models=False)


def test_a_missing_checksum_and_another_manifest_are_noticed(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    archive = copy_of(shared[1], tmp_path)
    manifest_path(archive).write_text("{}")
    with pytest.raises(ReleaseError, match=r"manifest.json: differs"):
        verify_release(archive, config=shared[0].config, load_models=False)
    checksum_path(archive).unlink()
    with pytest.raises(ReleaseError, match=r"sha256: cannot be read: No such file"):
        verify_release(archive, config=shared[0].config, load_models=False)
    archive.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        verify_release(archive, config=shared[0].config, load_models=False)


def test_a_checksum_of_another_archive_is_refused(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    archive = copy_of(shared[1], tmp_path)
    renamed = archive.rename(tmp_path / "release-other.tar.gz")
    checksum_path(archive).rename(checksum_path(renamed))
    with pytest.raises(ReleaseError, match=r"is about 'release-2"):
        verify_release(renamed, config=shared[0].config, load_models=False)


def test_the_manifest_is_read_from_an_archive_alone(shared: tuple[Place, ReleaseRecord]) -> None:
    assert read_manifest(shared[1].path).content_id == shared[1].content_id


def test_an_error_is_one_line_with_an_exit_code_of_its_own(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    archive = copy_of(shared[1], tmp_path)
    archive.write_bytes(b"junk")
    with pytest.raises(OpsError) as caught:
        verify_release(archive, config=shared[0].config)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.gz.sha256", ".manifest.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    suffix: str, shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    archive = copy_of(shared[1], tmp_path)
    stored = find_release(shared[0].config, archive)
    path = archive.with_name(archive.name.removesuffix(".tar.gz") + suffix)
    path.unlink()
    os.mkfifo(path)
    if suffix == ".manifest.json":  # a copy: what counts is in the archive
        assert verify_release(archive, config=shared[0].config, load_models=False)
    else:
        with pytest.raises((InputError, ReleaseError), match="cannot be read: no regular file"):
            verify_release(archive, config=shared[0].config, load_models=False)
    assert stored.manifest().content_id == shared[1].content_id


def test_a_release_of_an_earlier_build_with_a_damaged_card_does_not_verify(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.second.with_suffix(".json").write_bytes(b"")
    monkeypatch.setattr(
        "opslib.ops.release.collect.find_card",
        lambda config, model: None if model == place.second else find_card(config, model),
    )
    record = build_release(place.config, QUICK)
    with pytest.raises(ReleaseError, match=r"model-b.onnx: export/model-b.json: evidence that is"):
        verify_release(record.path, config=place.config)
    assert verify_release(record.path, config=place.config, load_models=False).models == ()
