"""H-2: a push that is cut off, killed or refused leaves nothing that can be seen."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opslib.core.errors import StorageError
from opslib.core.store import PART_BYTES, Store, open_store
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.companions import checksum_path
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.push import push_release
from opslib.ops.release.remote import find_remote, look_into
from opslib.ops.release.verify import verify_release
from tests.cutting import CuttingProxy, cutting
from tests.ops.release.conftest import QUICK, grow_sidecar, make_experiment, seal, visible
from tests.ops.release.test_command import call
from tests.s3 import S3
from tests.serving.conftest import Place
from tests.turns import looped, turns
from tests.waiting import await_that

Large = tuple[Place, ReleaseRecord]
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Large:
    """An experiment with one release that is sent in three parts."""
    place = make_experiment(tmp_path_factory.mktemp("large"))
    grow_sidecar(place, 5 * PART_BYTES // 2)
    return place, build_release(place.config, QUICK)


def parts_left(s3: S3, bucket: str) -> int:
    """How many uploads of a bucket were begun and neither finished nor given up."""
    return len(s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []))


def facts(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder of releases, and when it was changed."""
    found = {name: (folder / name).stat() for name in visible(folder) if (folder / name).is_file()}
    return {name: (one.st_size, one.st_mtime_ns) for name, one in found.items()}


@pytest.mark.parametrize("kind", ["s3", "file", "sftp"])
def test_a_push_is_checked_and_made_once(
    large: Large, kind: str, make_store: Callable[[str], str]
) -> None:
    place, record = large
    store = open_store(make_store(kind))
    expected = "the store's own digest of it fits" if kind == "s3" else "every byte read back"
    assert push_release(record.path, store, config=place.config).checked == expected
    before = store.list()
    assert len(before) == 3
    assert push_release(record.path, store, config=place.config).checked == expected
    assert store.list() == before
    (found,) = look_into(store).releases
    assert verify_release(found, config=place.config, load_models=False).sha256 == record.sha256


def test_what_arrived_before_is_not_sent_again(large: Large, s3: S3) -> None:
    place, record = large
    bucket = s3.make_bucket()
    store = open_store(f"s3://{bucket}/x")
    store.upload(record.path, record.path.name)
    before = len(s3.requests(bucket))
    push_release(record.path, store, config=place.config)
    sent = [one for one in s3.requests(bucket)[before:] if one.startswith(("PUT", "POST"))]
    assert len(sent) == 2
    assert len(look_into(store).releases) == 1


def test_what_is_pruned_while_it_is_pushed_is_not_seen(
    large: Large, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, record = large
    store = open_store(f"s3://{s3.make_bucket()}/x")
    store.upload(record.path, record.path.name)
    write = Store.write

    def prune_first(self: Store, name: str, data: bytes) -> None:
        if name.endswith(".sha256"):
            self.delete([record.path.name])
        write(self, name, data)

    monkeypatch.setattr(Store, "write", prune_first)
    with pytest.raises(StorageError, match="was deleted meanwhile; again"):
        push_release(record.path, store, config=place.config)
    assert look_into(store).releases == ()


def test_other_bytes_that_a_push_left_are_replaced(large: Large, s3: S3) -> None:
    place, record = large
    store = open_store(f"s3://{s3.make_bucket()}/x")
    store.write(record.path.name, b"half")
    push_release(record.path, store, config=place.config)
    found = find_remote(f"{store.url}/latest")
    assert verify_release(found, config=place.config, load_models=False).sha256 == record.sha256


def test_a_damaged_release_is_not_seen_there(large: Large, s3: S3, tmp_path: Path) -> None:
    place, record = large
    damaged = tmp_path / record.path.name
    seal(damaged, record.path.read_bytes())
    damaged.write_bytes(record.path.read_bytes()[:-1] + b"x")
    store = open_store(f"s3://{s3.make_bucket()}/x")
    with pytest.raises(ReleaseError, match=r"its bytes are not those of its \.sha256"):
        push_release(damaged, store, config=place.config)
    assert store.list() == {}


def test_a_digest_that_the_store_does_not_give_is_made_by_reading_back(
    large: Large, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, record = large
    store = open_store(f"s3://{s3.make_bucket()}/x")
    # Sent in parts of another size, as another program would: its tag is none that we know.
    store._files.put_file(str(record.path), f"{store._root}/{record.path.name}", chunksize=6 << 20)
    done = push_release(record.path, store, config=place.config)
    assert done.checked == "every byte read back"


@pytest.fixture(scope="module")
def whole(large: Large, s3_server: S3) -> Iterator[tuple[CuttingProxy, int]]:
    """A proxy that cuts, and how many bytes a whole push sends through it."""
    with cutting(s3_server.port) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in (s3_server.environment | {"AWS_ENDPOINT_URL": proxy.address}).items():
            patch.setenv(name, value)
        proxy.limit(None)
        store = open_store(f"s3://{s3_server.make_bucket()}/x")
        push_release(large[1].path, store, config=large[0].config)
        yield proxy, proxy.passed


@looped
@pytest.mark.parametrize("number", range(turns(4, 20)))
def test_a_connection_cut_at_any_moment_leaves_nothing_to_be_seen(
    large: Large,
    s3: S3,
    whole: tuple[CuttingProxy, int],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, record = large
    proxy, size = whole
    rng = random.Random(number)
    # The last kilobytes are the manifest and the checksum, which random moments seldom meet.
    moment = size - rng.randrange(6000) if number % 4 == 3 else rng.randrange(size)
    bucket = s3.make_bucket()
    url = f"s3://{bucket}/x"
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    local = facts(place.config.releases_dir)
    proxy.limit(moment)
    with pytest.raises(StorageError) as caught:
        push_release(record.path, open_store(url), config=place.config)
    assert str(caught.value).isprintable()
    proxy.limit(None)
    for one in look_into(open_store(url)).releases:  # where the last look was all that was cut off
        verify_release(one, config=place.config, load_models=False)
    push_release(record.path, open_store(url), config=place.config)
    (one,) = look_into(open_store(url)).releases
    assert verify_release(one, config=place.config, load_models=False).sha256 == record.sha256
    assert parts_left(s3, bucket) == 0
    assert facts(place.config.releases_dir) == local


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_a_killed_push_is_gone_on_with(
    large: Large, kind: str, request: pytest.FixtureRequest, make_store: Callable[[str], str]
) -> None:
    place, record = large
    url, server = make_store(kind), request.getfixturevalue(kind)

    def left() -> int:
        if kind == "s3":
            return parts_left(server, url.split("/")[2])
        folder: Path = server.folder(url)
        return len(list(folder.glob(".*.tmp"))) if folder.exists() else 0

    code = (
        "import sys; from pathlib import Path\n"
        "from opslib.core.config import load_config\n"
        "from opslib.core.store import open_store\n"
        "from opslib.ops.release.push import push_release\n"
        "push_release(Path(sys.argv[1]), open_store(sys.argv[2]), config=load_config(sys.argv[3]))"
    )
    arguments = [str(record.path), url, str(place.config_path)]
    with subprocess.Popen([sys.executable, "-c", code, *arguments]) as process:
        await_that(left, "the first part")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert left() == 1
    assert look_into(open_store(url)).releases == ()
    push_release(record.path, open_store(url), config=place.config)
    assert left() == 0
    assert len(look_into(open_store(url)).releases) == 1


@pytest.mark.parametrize("why", ["wrong credentials", "no credentials", "no bucket", "no network"])
def test_a_refusal_is_one_line_and_leaves_the_release_alone(
    place: Place, s3: S3, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = "no-such-bucket" if why == "no bucket" else s3.make_bucket()
    variables = {"AWS_ENDPOINT_URL": NOBODY} if why == "no network" else {}
    if why == "no credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    if why == "wrong credentials":
        with s3.checking_keys():
            made = call(place, "create", "--copy-to", f"s3://{bucket}/x")
    else:
        made = call(place, "create", "--copy-to", f"s3://{bucket}/x", **variables)
    expected = {
        "wrong credentials": "the credentials are wrong",
        "no credentials": "no credentials",
        "no bucket": "there is no such bucket",
        "no network": "cannot be reached",
    }
    assert made.returncode == 2, made.stderr
    *notes, error = made.stderr.splitlines()
    assert error.startswith("error: cannot ")
    assert f"s3://{bucket}/x" in error
    assert expected[why] in error
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in made.stderr
    archive = Path(made.stdout.strip())
    assert verify_release(archive, config=place.config, load_models=False).sha256
    assert checksum_path(archive).exists()
    if why in ("wrong credentials", "no credentials"):
        again = re.search(r"`pillops release (copy [^`]+)` goes on", "\n".join(notes))
        assert again is not None
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        done = call(place, *again[1].split())
        assert done.returncode == 0, done.stderr
        assert len(look_into(open_store(f"s3://{bucket}/x")).releases) == 1
