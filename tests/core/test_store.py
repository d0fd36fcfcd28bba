"""A folder of objects that several hosts share: on a disk, on a real S3 server, over real SFTP."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opslib.core.errors import ExitCode, ParameterError, StorageError, UnavailableError
from opslib.core.files import hide_name
from opslib.core.store import PART_BYTES, Store, open_store
from opslib.core.store_address import check_store_url, is_address
from tests.cutting import cutting
from tests.s3 import KEY_ID, S3, SECRET


@pytest.fixture(params=["file", "s3", "sftp"])
def store(
    request: pytest.FixtureRequest, make_store: Callable[[str], str], tmp_path: Path
) -> Store:
    if request.param == "file":
        return open_store(f"file://{tmp_path}/a%20folder/[of] objects")
    return open_store(make_store(request.param))


def refusal(action: object, *arguments: object) -> str:
    with pytest.raises(StorageError) as caught:
        action(*arguments)  # type: ignore[operator]
    text = str(caught.value)
    assert text.isprintable()
    assert SECRET not in text
    assert caught.value.exit_code == ExitCode.USAGE
    return text


def test_what_is_written_is_read_listed_and_deleted(store: Store) -> None:
    assert store.list() == {}
    store.write("b/one [1].json", b"one")
    store.write("b/two.json", b"two")
    store.write("bc.json", b"")
    assert list(store.list()) == ["b/one [1].json", "b/two.json", "bc.json"]
    assert list(store.list("b/")) == ["b/one [1].json", "b/two.json"]
    assert list(store.list("b/t")) == ["b/two.json"]
    assert store.list("c") == {}
    assert store.read("b/one [1].json") == b"one"
    names = ["b/one [1].json", "gone", "b/two.json"]
    assert store.read_many(names) == {"b/one [1].json": b"one", "b/two.json": b"two"}
    store.delete(["b/one [1].json", "bc.json", "gone"])
    assert list(store.list()) == ["b/two.json"]


def test_a_listing_tells_other_bytes_of_the_same_size(store: Store) -> None:
    store.write("name", b"before")
    before = store.list()["name"]
    store.write("name", b"behind")
    after = store.list()["name"]
    assert (before.bytes, after.bytes) == (6, 6)
    assert before.version != after.version
    assert after.modified_s >= before.modified_s > 1e9


def test_a_large_file_goes_and_comes_in_parts(store: Store, tmp_path: Path) -> None:
    data = os.urandom(2 * PART_BYTES + 12_345)
    (tmp_path / "large").write_bytes(data)
    store.upload(tmp_path / "large", "deep/er/large")
    assert store.list()["deep/er/large"].bytes == len(data)
    with store.open("deep/er/large") as file:
        assert file.read(10) == data[:10]
        assert file.read() == data[10:]
    store.download("deep/er/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_what_is_not_there_is_one_line(store: Store, tmp_path: Path) -> None:
    for action in (store.read, lambda name: store.open(name).read()):
        text = refusal(action, "no/such")
        assert f"{store.url}/no/such: " in text
        assert "no such" in text.lower()
    assert f"cannot read {tmp_path}/none" in refusal(store.upload, tmp_path / "none", "name")
    assert store.list() == {}


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/"])
def test_a_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="relative name"):
        open_store(f"file://{tmp_path}/store").write(name, b"")


def test_in_a_folder_what_was_never_finished_is_not_there(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    store.write("name", b"whole")
    hide_name(tmp_path / "store" / "name").write_bytes(b"hal")
    assert list(store.list()) == ["name"]


def test_in_a_folder_a_write_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    store.write("file", b"")
    assert "File exists" in refusal(store.write, "file/name", b"data")
    store.write("folder/name", b"")
    assert "Is a directory" in refusal(store.write, "folder", b"data")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "name"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "reports",
        "gs://bucket/x",
        "s3://",
        "s3:///x",
        "s3://Bucket/x",
        "s3://bucket/a/../b",
        "s3://bucket//a",
        "s3://bucket/a?versionId=1",
        "s3://bucket/a#b",
        "s3://bucket/a\nb",
        "file://host/folder",
        "file:///",
        "s3://[bucket/x",
        "sftp://host",
        "sftp://host/",
        "sftp:///folder",
        "sftp://host/a/%2e%2e/b",
        "sftp://host/a%00b",
        "sftp://host:0/folder",
        "sftp://host:ssh/folder",
        "sftp://host:99999/folder",
        "sftp:/host/folder",
        "s3:bucket/prefix",
        "file:folder",
        "sftp://-oProxyCommand=x/folder",
        "sftp://-x@host/folder",
        "ssh://host/folder",
    ],
)
def test_what_is_no_address_of_a_store_is_refused(url: str) -> None:
    expected = "expected s3://bucket/prefix, sftp://host/folder or file:///folder"
    assert is_address(url) == (":" in url)
    with pytest.raises(ParameterError, match=expected):
        check_store_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret-of-mine@bucket/prefix",
        "s3://secret-of-mine@bucket/prefix",
        "sftp://me:secret-of-mine@host/folder",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ParameterError, match="credentials stand in it") as caught:
        open_store(url)
    assert "secret-of-mine" not in str(caught.value)


def test_without_its_package_a_store_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    with pytest.raises(UnavailableError, match=r"pip install 'pillops\[s3\]'"):
        open_store("s3://bucket/prefix")


def test_a_missing_bucket_is_one_line(s3: S3, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/prefix")
    for text in (
        refusal(store.list),
        refusal(store.read_many, ["name"]),
        refusal(store.write, "name", b""),
    ):
        assert text.startswith("cannot ")
        assert "s3://no-such-bucket/prefix" in text
        assert text.endswith("there is no such bucket")


def test_wrong_credentials_are_one_line(s3: S3) -> None:
    store = open_store(f"s3://{s3.make_bucket()}/prefix")
    with s3.checking_keys():
        for text in (refusal(store.list), refusal(store.write, "name", b"")):
            assert text.endswith("the credentials are wrong: no such access key")
            assert KEY_ID not in text


def test_no_credentials_are_one_line(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    text = refusal(open_store("s3://bucket/prefix").list)
    assert "no credentials; expected AWS_ACCESS_KEY_ID" in text


def test_no_network_is_one_line(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with cutting(s3.port) as proxy:
        address = proxy.address
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)  # nothing listens there any more
    store = open_store("s3://bucket/prefix")
    assert refusal(store.list) == "cannot list s3://bucket/prefix: cannot be reached"
    assert refusal(store.write, "name", b"").endswith("cannot be reached")


def test_an_upload_that_is_cut_leaves_what_was_there(
    s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = s3.make_bucket()
    (tmp_path / "large").write_bytes(os.urandom(3 * PART_BYTES))
    with cutting(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        store = open_store(f"s3://{bucket}/prefix")
        store.write("name", b"before")
        proxy.limit(2 * PART_BYTES)
        text = refusal(store.upload, tmp_path / "large", "name")
        assert f"to s3://{bucket}/prefix/name: " in text
        assert s3.read(bucket, "prefix/name") == b"before"
        proxy.limit(None)
        store.upload(tmp_path / "large", "name")
    assert s3.objects(bucket) == {"prefix/name": 3 * PART_BYTES}
