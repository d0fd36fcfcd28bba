"""An object is read from its start to its end, a block ahead, whatever happens to a connection."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from opslib.core.errors import StorageError
from opslib.core.store import Store, open_store
from opslib.core.store_reading import BLOCK_BYTES
from tests.cutting import CuttingProxy, cutting
from tests.s3 import S3

DATA = os.urandom(6 * BLOCK_BYTES + 12_345)


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[CuttingProxy]:
    with cutting(s3.port) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.address)
        yield found


@pytest.fixture
def store(s3: S3, proxy: CuttingProxy) -> Store:
    """A store that holds an object of six blocks and a little, reached through what cuts."""
    found = open_store(f"s3://{s3.make_bucket()}/x")
    found.write("name", DATA)
    return found


def test_a_whole_object_costs_one_request_however_it_is_read(store: Store, s3: S3) -> None:
    bucket = store.url.split("/")[2]
    before = len(s3.requests(bucket))
    with store.open("name") as file:
        pieces = [file.read(24), file.read(BLOCK_BYTES + 1), file.read(1), file.read()]
        assert file.tell() == len(DATA)
        assert file.read(5) == b""
    assert b"".join(pieces) == DATA
    assert len(pieces[1]) == BLOCK_BYTES + 1
    assert len(s3.requests(bucket)) - before == 1


def test_it_can_be_sent_back_to_its_start(store: Store) -> None:
    with store.open("name") as file:
        file.read(BLOCK_BYTES + 7)
        assert file.seek(0) == 0
        assert file.read() == DATA


def test_a_connection_that_is_cut_is_gone_on_with(store: Store, proxy: CuttingProxy) -> None:
    read = []
    with store.open("name") as file:
        while piece := file.read(BLOCK_BYTES):
            read.append(piece)
            if len(read) in (1, 3):
                proxy.cut()
    assert b"".join(read) == DATA


def test_where_no_connection_comes_back_it_is_one_line(store: Store, proxy: CuttingProxy) -> None:
    with store.open("name") as file:
        file.read(1)
        proxy.limit(0)
        proxy.cut()
        with pytest.raises(StorageError, match=rf"cannot read {store.url}/name: ") as caught:
            file.read()
    assert str(caught.value).isprintable()


def test_another_object_of_that_name_is_not_taken_for_the_rest(
    store: Store, proxy: CuttingProxy
) -> None:
    store.write("name", DATA * 4)  # more than what lies between reads ahead and sockets' buffers
    with store.open("name") as file:
        file.read(1)
        store.write("name", DATA[::-1])
        proxy.cut()
        with pytest.raises(StorageError, match=rf"cannot read {store.url}/name: "):
            file.read()


def test_an_empty_object_is_empty(store: Store) -> None:
    store.write("empty", b"")
    with store.open("empty") as file:
        assert file.read() == b""
