"""H-2: an archive made by someone else is refused before it can write outside its folder."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from opslib.core.cards import FileEntry
from opslib.ops.release.archive import BLOCK_BYTES, MEMBER_HEADER, MEMBER_LENGTH, deflate_member
from opslib.ops.release.build import ReleaseRecord
from opslib.ops.release.inflate import DamagedGzipError, GzipReader
from opslib.ops.release.manifest import (
    Manifest,
    ReleaseError,
    compute_content_id,
    find_name_problem,
)
from opslib.ops.release.restore import restore_release
from opslib.ops.release.unpack import UnpackLimits, unpack
from opslib.ops.release.verify import verify_release
from tests.ops.release.conftest import members_of, seal, write_archive
from tests.serving.conftest import Place

Member = tarfile.TarInfo | tuple[str, bytes]


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sized(name: str, size: int) -> tarfile.TarInfo:
    """A header that promises more than follows."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info


EVIL: dict[str, tuple[list[Member], str]] = {
    "absolute": ([("/tmp/evil.txt", b"x")], "/tmp/evil.txt: an absolute path"),
    "upwards": ([("../evil.txt", b"x")], "leads out of its folder"),
    "upwards inside": ([("export/../../evil.txt", b"x")], "leads out of its folder"),
    "symlink out": ([special("export", tarfile.SYMTYPE, "/tmp")], "export: a link to /tmp"),
    "symlink inside": ([special("a", tarfile.SYMTYPE, "b")], "a: a link to b"),
    "write through a link": (
        [special("export", tarfile.SYMTYPE, ".."), ("export/evil.txt", b"x")],
        "export: a link to ..",
    ),
    "hard link": ([special("a", tarfile.LNKTYPE, "/etc/passwd")], "a link to /etc/passwd"),
    "character device": ([special("null", tarfile.CHRTYPE)], "null: a device"),
    "block device": ([special("disk", tarfile.BLKTYPE)], "disk: a device"),
    "pipe": ([special("pipe", tarfile.FIFOTYPE)], "pipe: a pipe"),
    "sparse": ([special("holes", tarfile.GNUTYPE_SPARSE)], "holes: a member of type"),
    "twice": ([("a", b"1"), ("a", b"2")], "a: the name comes twice"),
    "file as folder": ([("a", b"1"), ("a/b", b"2")], "a/b: a is a file"),
    "folder as file": ([("a/b", b"1"), ("a", b"2")], "a: the name comes twice"),
    "dot": ([("./a", b"x")], "not a plain relative path"),
    "empty part": ([("a//b", b"x")], "not a plain relative path"),
    "backslash": ([("a\\b", b"x")], "a character"),
    "newline": ([("a\nb", b"x")], "a character"),
    "dotenv": ([(".env", b"API_KEY=1")], ".env: a release never holds one"),
    "dotenv deeper": ([("export/.env", b"x")], "a release never holds one"),
    "long name": ([("n" * 2000, b"x")], "a name of"),
    "long part": ([("n" * 300, b"x")], "a name that is too long"),
    "deep": ([("/".join("a" * 20), b"x")], "folders deep"),
    "no manifest": ([("a", b"x")], "holds no MANIFEST.json"),
}


@pytest.mark.parametrize("name", EVIL)
def test_what_is_not_plain_is_refused_and_nothing_is_written(
    name: str, shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    members, message = EVIL[name]
    archive = write_archive(tmp_path / "in" / "release-evil.tar.gz", members)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ReleaseError) as caught:
        restore_release(archive, tmp_path / "out" / "there", config=shared[0].config)
    assert message in str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert {*tmp_path.rglob("*")} == {*before, tmp_path / "out"}
    assert not Path("/tmp/evil.txt").exists()


def repack(record: ReleaseRecord, path: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """A release whose members were changed, with a checksum that fits."""
    members = members_of(record.path)
    change(members)
    return write_archive(path, list(members.items()))


def edit(**changes: object) -> Callable[[dict[str, bytes]], object]:
    """A change of the manifest."""

    def apply(members: dict[str, bytes]) -> None:
        manifest = Manifest.model_validate_json(members.pop("MANIFEST.json"))
        new = {k: v(manifest) if callable(v) else v for k, v in changes.items()}
        members["MANIFEST.json"] = manifest.model_copy(update=new).to_json().encode()

    return apply


def other_entries(manifest: Manifest) -> tuple[FileEntry, ...]:
    first, *rest = manifest.files
    return (first.model_copy(update={"sha256": "0" * 64}), *rest)


def fewer_entries(manifest: Manifest) -> tuple[FileEntry, ...]:
    return manifest.files[1:]


def renamed_model(manifest: Manifest) -> object:
    first, *rest = manifest.models
    return (first.model_copy(update={"sha256": "1" * 64}), *rest)


def move_manifest(members: dict[str, bytes]) -> None:
    data = members.pop("MANIFEST.json")
    rest = dict(members)
    members.clear()
    members.update({"MANIFEST.json": data, **rest})


def add_hidden(members: dict[str, bytes]) -> None:
    data = members.pop("MANIFEST.json")
    members.update({"export/extra.onnx": b"x", "MANIFEST.json": data})


def change_weights(members: dict[str, bytes]) -> None:
    members["export/model-b.onnx.data"] = b"y" * len(members["export/model-b.onnx.data"])


def take_the_links_name(members: dict[str, bytes]) -> None:
    """Pack a model under the name that the link `latest.onnx` takes."""
    old, name = "export/model-a.onnx", "export/latest.onnx"
    manifest = Manifest.model_validate_json(members.pop("MANIFEST.json"))
    members[name] = members.pop(old)
    files, models = (
        tuple(one.model_copy(update={"path": name}) if one.path == old else one for one in ones)
        for ones in (manifest.files, manifest.models)
    )
    new = {"files": files, "models": models, "content_id": compute_content_id(files)}
    members["MANIFEST.json"] = manifest.model_copy(update=new).to_json().encode()


LIES: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "another file": (change_weights, "export/model-b.onnx.data has sha256"),
    "an entry lies": (edit(files=other_entries), ".env.example has sha256"),
    "a file is not listed": (edit(files=fewer_entries), ".env.example is not listed"),
    "a file is hidden": (add_hidden, "export/extra.onnx is not listed"),
    "a file is missing": (lambda m: m.pop("config.yaml"), "config.yaml is listed in"),
    "content_id": (edit(content_id="2" * 64), "contradicts its own files: content_id"),
    "digest of a model": (edit(models=renamed_model), "digest or size of the model"),
    "main": (edit(main="config.yaml"), "main: config.yaml"),
    "latest leads out": (edit(latest="../../evil"), "latest: ../../evil"),
    "latest is taken": (take_the_links_name, "latest: export/model-b.onnx"),
    "no models": (edit(models=()), "contradicts its own files: main"),
    "version": (edit(git_sha="fffffff"), "VERSION.txt differs from MANIFEST.json"),
    "not last": (move_manifest, "MANIFEST.json is not the last file"),
    "no record": (lambda m: m.update({"MANIFEST.json": b"{}"}), "is no release-manifest/1 record"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_manifest_that_lies_is_refused(
    name: str, shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    change, message = LIES[name]
    archive = repack(shared[1], tmp_path / shared[1].path.name, change)
    with pytest.raises(ReleaseError) as caught:
        restore_release(archive, tmp_path / "out", config=shared[0].config)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_release_packed_again_by_other_tools_still_verifies(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    archive = repack(shared[1], tmp_path / shared[1].path.name, lambda members: members)
    record = verify_release(archive, config=shared[0].config, load_models=False)
    assert record.content_id == shared[1].content_id


def limit(shared: tuple[Place, ReleaseRecord], archive: Path, limits: UnpackLimits) -> None:
    with archive.open("rb") as file, GzipReader(file) as reader:
        unpack(reader, limits)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (UnpackLimits(max_files=3), "more than 3 files"),
        (UnpackLimits(max_file_bytes=300), "at most 300 B a file"),
        (UnpackLimits(max_total_bytes=1000), "more than 1000 B altogether"),
    ],
)
def test_counts_and_sizes_are_limited(
    shared: tuple[Place, ReleaseRecord], limits: UnpackLimits, message: str
) -> None:
    with pytest.raises(ReleaseError, match=message):
        limit(shared, shared[1].path, limits)


def test_a_bomb_is_refused_by_what_it_promises_before_it_is_inflated(tmp_path: Path) -> None:
    header = sized("bomb", 1 << 40).tobuf(tarfile.GNU_FORMAT)
    zeros = gzip.compress(bytes(64 << 20), 9)
    archive = seal(tmp_path / "release-bomb.tar.gz", gzip.compress(header) + zeros)
    with archive.open("rb") as file, GzipReader(file) as reader:
        with pytest.raises(ReleaseError, match="bomb: 1,099,511,627,776 bytes; at most"):
            unpack(reader, UnpackLimits())
        assert reader.finish()


def test_a_bomb_of_one_gzip_member_is_never_inflated_beyond_a_block() -> None:
    raw = isal_zlib.compress(bytes(256 << 20), 3, wbits=31)[10:]
    start = MEMBER_HEADER + MEMBER_LENGTH.pack(len(MEMBER_HEADER) + MEMBER_LENGTH.size + len(raw))
    with (
        GzipReader(io.BytesIO(start + raw)) as reader,
        pytest.raises(DamagedGzipError, match="not as long as it states"),
    ):
        list(reader.blocks())


def test_bytes_behind_the_end_of_the_tar_are_refused(
    shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    tar = gzip.decompress(shared[1].path.read_bytes())
    for tail in (b"x", bytes(2 << 20)):
        archive = seal(tmp_path / shared[1].path.name, gzip.compress(tar + tail))
        with pytest.raises(ReleaseError, match="bytes behind the end of the tar"):
            verify_release(archive, config=shared[0].config, load_models=False)


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"no gzip at all", gzip.compress(b"", mtime=0)])
def test_what_is_no_archive_is_refused(
    data: bytes, shared: tuple[Place, ReleaseRecord], tmp_path: Path
) -> None:
    archive = seal(tmp_path / "release-x.tar.gz", data)
    with pytest.raises(ReleaseError, match=r"release-x.tar.gz: the first header"):
        verify_release(archive, config=shared[0].config, load_models=False)


@given(st.lists(st.integers(0, 300_000), max_size=6), st.integers(1, 4))
def test_members_inflate_to_what_was_deflated(sizes: list[int], threads: int) -> None:
    blocks = [os.urandom(size) for size in sizes] or [b""]
    data = b"".join(deflate_member(memoryview(block)) for block in blocks)
    with GzipReader(io.BytesIO(data), threads=threads) as reader:
        assert list(reader.blocks()) == blocks
    assert gzip.decompress(data) == b"".join(blocks)
    assert max(map(len, blocks)) <= BLOCK_BYTES


@given(st.text(max_size=40))
def test_a_name_that_is_accepted_stays_below_its_folder(name: str) -> None:
    if find_name_problem(name) is None:
        path = Path(os.path.normpath(Path("/root/of/it") / name))
        assert path.is_relative_to("/root/of/it")
        assert path != Path("/root/of/it")
