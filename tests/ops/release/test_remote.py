"""H-2: releases in a store that several hosts share: sent whole, found, verified, restored."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from opslib.cli import app
from opslib.core.config import load_config
from opslib.core.errors import ConfigError, ParameterError
from opslib.core.store import open_store
from opslib.ops.release.build import ReleaseRecord
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.push import push_release
from opslib.ops.release.remote import find_anywhere, find_remote, look_into
from opslib.ops.release.restore import restore_release
from opslib.ops.release.verify import verify_release
from tests.ops.release.conftest import make_experiment, visible
from tests.ops.release.test_command import call
from tests.s3 import S3
from tests.serving.conftest import Place

Shared = tuple[Place, ReleaseRecord]


@pytest.fixture
def address(s3: S3) -> str:
    """An empty store."""
    return f"s3://{s3.make_bucket()}/models/releases"


def name_of(record: ReleaseRecord) -> str:
    return record.path.name.removesuffix(".tar.gz")


def run(place: Place, *arguments: str) -> str:
    """Run `pillops release` here and return what it says; it must succeed."""
    answer = CliRunner().invoke(app, ["release", *arguments, "--config", str(place.config_path)])
    assert answer.exit_code == 0, answer.output
    return answer.output


def replace_object(s3: S3, address: str, name: str, data: bytes) -> None:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    s3.client().put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)


def test_a_release_goes_there_and_comes_back_on_another_host(
    place: Place, address: str, tmp_path: Path
) -> None:
    made = call(place, "create", "--copy-to", address)
    assert made.returncode == 0, made.stderr
    name = Path(made.stdout.strip()).name.removesuffix(".tar.gz")
    said = f"second copy {address}/{name}.tar.gz: the store's own digest of it fits"
    assert said in made.stderr
    other = make_experiment(tmp_path / "other")
    listed = run(other, "list", "--store", address)
    assert name in listed
    assert "model-b.onnx" in listed
    assert "1 release, " in listed
    verified = call(other, "verify", f"{address}/{name}")
    assert verified.returncode == 0, verified.stderr
    assert "every byte as listed; no model was loaded" in verified.stdout
    assert not other.config.releases_dir.exists()
    restored = call(other, "restore", f"{address}/{name}.tar.gz")
    assert restored.returncode == 0, restored.stderr
    assert "2 models loaded and answered 16 golden images" in restored.stdout
    model = other.config.restore_dir / name / "export" / "model-b.onnx"
    assert model.read_bytes() == place.second.read_bytes()
    assert visible(other.config.restore_dir) == [name]


def test_a_name_is_looked_for_in_the_configured_store_too(
    shared: Shared, address: str, tmp_path: Path
) -> None:
    place, record = shared
    push_release(record.path, open_store(address), config=place.config)
    other = make_experiment(tmp_path / "other", f"release: {{copy_to: '{address}/'}}\n")
    found = find_anywhere(other.config, record.path.name)
    assert found.name == name_of(record)
    done = restore_release(found, config=other.config, load_models=False)
    assert done.manifest.content_id == record.content_id
    assert name_of(record) in run(other, "list", "--store", "copy_to")
    assert "no model was loaded" in run(other, "verify", "--all", "--store", "copy_to")
    with pytest.raises(ParameterError, match="no such release; in s3://"):
        find_anywhere(other.config, "release-20200101-000000-nogit")


def test_a_configured_store_gets_each_new_release_and_a_folder_still_does(
    place: Place, address: str, tmp_path: Path
) -> None:
    for where in (address, str(tmp_path / "there"), f"file://{tmp_path}/shared"):
        made = call(place, "create", PILLSNAP_RELEASE__COPY_TO=where)
        assert made.returncode == 0, made.stderr
        assert f"second copy {where}/" in made.stderr
    assert len(visible(tmp_path / "there")) == 3
    assert visible(tmp_path / "there")[1:2] != visible(tmp_path / "shared")[1:2]
    assert len(visible(tmp_path / "shared")) == 3
    assert len(look_into(open_store(address)).releases) == 1


def test_what_lies_there_damaged_is_named_and_never_replaced(
    shared: Shared, s3: S3, address: str
) -> None:
    place, record = shared
    store = open_store(address)
    push_release(record.path, store, config=place.config)
    data = bytearray(record.path.read_bytes())
    data[len(data) // 2] ^= 1
    replace_object(s3, address, record.path.name, bytes(data))
    found = find_remote(f"{address}/latest")
    with pytest.raises(ReleaseError, match=rf"{name_of(record)}.*damaged"):
        verify_release(found, config=place.config, load_models=False)
    with pytest.raises(ReleaseError, match="damaged"):
        restore_release(found, config=place.config)
    assert not (place.config.restore_dir / found.name).exists()
    with pytest.raises(ReleaseError, match=r"its bytes are not those of its \.sha256"):
        push_release(record.path, store, config=place.config)
    assert store.read(record.path.name) == bytes(data)


def test_an_archive_with_another_checksum_or_manifest_is_refused(
    shared: Shared, s3: S3, address: str
) -> None:
    place, record = shared
    push_release(record.path, open_store(address), config=place.config)
    wrong = f"{'0' * 64}  {record.path.name}\n".encode()
    replace_object(s3, address, f"{record.path.name}.sha256", wrong)
    with pytest.raises(ReleaseError, match="another release of the same name"):
        push_release(record.path, open_store(address), config=place.config)
    with pytest.raises(ReleaseError, match=r"\.sha256: says 000000000000"):
        verify_release(find_remote(f"{address}/latest"), config=place.config, load_models=False)
    replace_object(s3, address, f"{name_of(record)}.manifest.json", b"{}")
    (broken,) = look_into(open_store(address)).releases
    assert broken.problem == f"{name_of(record)}.manifest.json is no copy of its manifest"


def test_a_release_without_its_checksum_is_not_there(shared: Shared, s3: S3, address: str) -> None:
    place, record = shared
    store = open_store(address)
    push_release(record.path, store, config=place.config)
    store.delete([f"{record.path.name}.sha256"])
    found = look_into(store)
    assert found.releases == ()
    assert set(found.unfinished) == {name_of(record)}
    with pytest.raises(ParameterError, match="no such release"):
        find_remote(f"{address}/{name_of(record)}")
    assert "1 unfinished push" in run(place, "list", "--store", address)


def test_listing_asks_little_and_only_once(shared: Shared, s3: S3, address: str) -> None:
    place, record = shared
    store = open_store(address)
    push_release(record.path, store, config=place.config)
    bucket = address.split("/")[2]
    before = len(s3.requests(bucket))
    for _ in range(3):
        assert look_into(store).releases[0].read_copy() is not None
    assert len(s3.requests(bucket)) - before <= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "s3://bucket"], "names no release; expected"),
        (["verify", "s3://bucket/prefix/model"], "names no release; expected"),
        (["verify", "ftp://bucket/release-20200101-000000-nogit"], "no address of a store"),
        (["verify", "--store", "s3://bucket"], "expected --all beside it"),
        (["list", "--store", "copy_to"], "release.copy_to is not set"),
        (["list", "--store", "s3://name:word@bucket/x"], "credentials stand in it"),
        (["create", "--copy-to", "s3://name:word@bucket/x"], "credentials stand in it"),
        (["copy"], "release.copy_to is null"),
        (
            ["copy", "release-20200101-000000-nogit", "--copy-to", "s3://bucket/x"],
            "no such release",
        ),
    ],
)
def test_a_wrong_address_is_one_line_and_exit_code_2(
    place: Place, arguments: list[str], message: str
) -> None:
    answer = call(place, *arguments)
    assert answer.returncode == 2, answer.stdout
    assert message in answer.stderr.splitlines()[-1]
    assert "word" not in answer.stderr
    assert answer.stderr.count("error: ") == 1
    assert not list(place.config.releases_dir.glob("*.tar.gz"))


def test_a_configured_address_with_credentials_is_refused_and_not_repeated(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"copy_to.*credentials stand in it") as caught:
        load_config(place.config_path, {"PILLSNAP_RELEASE__COPY_TO": "s3://me:word@bucket/x"})
    assert "word" not in str(caught.value)
