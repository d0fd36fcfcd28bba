"""What a model tells of where it was made is said when it is released; a copy that does not tell
it is released only where it answers alike, bit for bit."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from opslib.core.cards import check_files, read_card, read_export_report
from opslib.core.config import load_config
from opslib.core.errors import ModelError
from opslib.core.files import sha256_file
from opslib.core.models import find_model_files
from opslib.core.wire import leave_out
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.command import create
from opslib.ops.release.gives_away import Telling, describe_tellings, find_tellings
from opslib.ops.release.manifest import Manifest, ReleaseError
from opslib.ops.release.report import Subject
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.restore import restore_release
from opslib.ops.release.rollback import find_stable
from opslib.ops.release.store import find_release
from opslib.serving.live import LiveVersion
from tests.models import write_config, write_onnx
from tests.ops.release.conftest import QUICK, make_experiment, members_of, visible
from tests.serving.conftest import Place, write_card

STRIPPED = ReleaseRequest(strip_metadata=True)
KEY = "pkg.torch.onnx.stack_trace"
TRACE = (
    'File "/home/max16/pills/net.py", line 40, in forward\n    x = self.stem(x)\n'
    '  File "/usr/lib/python3.11/site-packages/torch/nn/conv.py", line 553, in forward'
)


def tell_all(model: onnx.ModelProto, value: str = TRACE) -> None:
    """Give each node a stack trace, as Torch's exporter does."""
    for node in model.graph.node:
        node.metadata_props.add(key="namespace", value=": net.Pills/stem: torch.nn.Conv2d")
        node.metadata_props.add(key=KEY, value=value)


def rewrite(place: Place, path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """Change a model of the experiment, with its card and the export report."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    onnx.save(model, path)
    card = write_card(path, place.images)
    if path == place.second:
        card.write(place.export / "export_report.json")


@dataclass(frozen=True)
class Stripped:
    """An experiment whose only model gives something away, and a release of a copy of it; one of
    another model, which lies nowhere else, was made before."""

    place: Place
    record: ReleaseRecord
    other_sha256: str

    @property
    def members(self) -> dict[str, bytes]:
        """The files of the release."""
        return members_of(self.record.path)


@pytest.fixture(scope="module")
def stripped(tmp_path_factory: pytest.TempPathFactory) -> Stripped:
    def change(model: onnx.ModelProto) -> None:
        tell_all(model)
        model.graph.initializer[0].name = model.graph.node[2].input[1] = "/home/kim/weights.bin"

    place = make_experiment(tmp_path_factory.mktemp("telling"))
    build_release(place.config, ReleaseRequest(place.first, only=True, verify=False))
    other = find_model_files(place.first).digest()
    leave_one(place)
    rewrite(place, place.second, change)
    return Stripped(place, build_release(place.config, STRIPPED), other)


def look(path: Path) -> tuple[Telling, ...]:
    with path.open("rb") as file:
        return find_tellings(file, path.name)


def manifest_of(members: dict[str, bytes]) -> Manifest:
    return Manifest.model_validate_json(members["MANIFEST.json"])


def version_of(path: Path) -> LiveVersion:
    return LiveVersion(str(path), find_model_files(path).digest(), path.stem, 1)


def test_a_model_with_stack_traces_is_named_with_a_path_and_a_user(place: Place) -> None:
    rewrite(place, place.second, tell_all)
    record = build_release(place.config, QUICK)
    assert record.gives_away == (
        "export/model-b.onnx gives away paths such as /home/max16/pills/net.py, the user max16 in "
        "3 entries of its metadata; --strip-metadata releases a copy without",
    )
    members = members_of(record.path)
    assert members["export/model-b.onnx"] == place.second.read_bytes()
    assert b"max16" not in members["MANIFEST.json"]
    assert b"original_sha256" not in members["MANIFEST.json"]


def test_the_command_and_the_report_warn_of_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(place, place.second, tell_all)
    assert create(only=True, config=place.config_path) == 0
    told = capsys.readouterr()
    assert "warning: export/model-b.onnx gives away paths such as /home/" in told.err
    assert find_release(place.config, told.out.strip()).path.exists()
    (kept,) = place.config.records_dir.glob("release_*.json")
    record = ReleaseRecord.read(kept)
    assert len(record.gives_away) == 1
    assert Subject(None, None, record).notes == record.gives_away


def test_models_that_give_nothing_away_are_not_mentioned_and_stay_as_they_are(
    place: Place, tmp_path: Path
) -> None:
    record = build_release(place.config, STRIPPED)
    plain = build_release(place.config, replace(QUICK, out=tmp_path / "plain"))
    assert record.gives_away == record.notes == ()
    assert record.content_id == plain.content_id


def test_the_copy_differs_by_what_it_gave_away_alone(stripped: Stripped) -> None:
    original, manifest = stripped.place.second, manifest_of(stripped.members)
    copy = onnx.load_model_from_string(stripped.members["export/model-b.onnx"])
    wanted = onnx.load(original, load_external_data=False)
    for node in wanted.graph.node:
        assert node.metadata_props.pop().value == TRACE
    assert copy == wanted
    digest = sha256_file(original)
    note = f"export/model-b.onnx: a copy of sha256 {digest[:12]}… without 3 entries of metadata"
    assert stripped.record.notes == manifest.notes == (note,)
    assert manifest.latest == manifest.main == "export/model-b.onnx"
    assert manifest.main_model.original_sha256 == find_model_files(original).digest()
    both = {manifest.main_model.sha256, manifest.main_model.original_sha256}
    assert len(both) == 2
    assert manifest.digests() == both
    assert str(manifest.main_model.original_sha256).encode() in stripped.members["bom.cdx.json"]


def test_the_model_in_export_and_its_card_stay_as_they_are(stripped: Stripped) -> None:
    original = stripped.place.second
    card = read_card(original)
    assert card is not None
    check_files(find_model_files(original), card)
    assert len(look(original)) == 3 + 2


def test_a_name_is_reported_and_stays(stripped: Stripped) -> None:
    assert stripped.record.gives_away == (
        "export/model-b.onnx gives away paths such as /home/kim/weights.bin, the user kim in "
        "2 names or values, which cannot be taken out",
    )


def test_the_copy_restores_verifies_and_answers_bit_for_bit_alike(
    stripped: Stripped, tmp_path: Path
) -> None:
    config, original = stripped.place.config, stripped.place.second
    assert stripped.record.models[0].stages[-1] == "golden"
    done = restore_release(stripped.record.path, tmp_path / "restored", config=config)
    assert done.checks[0].golden_images == len(stripped.place.images)
    assert find_model_files(done.model).digest() == manifest_of(stripped.members).main_model.sha256
    card, report = read_card(done.model), read_export_report(done.model.parent)
    assert card is not None
    assert card == report
    assert card.files[0].sha256 == sha256_file(done.model)
    assert card.files[0].size == done.model.stat().st_size < original.stat().st_size
    images = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    asked, copied = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        .run(None, {"input": images})[0]
        .tobytes()
        for path in (original, done.model)
    )
    assert asked == copied


def test_a_rollback_takes_no_copy_of_the_live_model_for_another_one(stripped: Stripped) -> None:
    config, original = stripped.place.config, stripped.place.second
    assert find_stable(config, version_of(original)).sha256 == stripped.other_sha256
    copy = restore_release(stripped.record.path, None, config=config, load_models=False).model
    assert find_stable(config, version_of(copy)).sha256 == stripped.other_sha256


def test_copies_that_two_hosts_made_of_one_model_are_one_to_a_rollback(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(model: onnx.ModelProto) -> None:
        tell_all(model)
        model.doc_string = "made on pill-ws1"

    build_release(place.config, ReleaseRequest(place.first, only=True, verify=False))
    other = find_model_files(place.first).digest()
    leave_one(place)
    rewrite(place, place.second, change)
    copies = []
    for host in ("pill-ws1", "pill-ws2"):
        monkeypatch.setattr(platform, "node", lambda host=host: host)
        released = build_release(place.config, STRIPPED).path
        copies.append(restore_release(released, None, config=place.config, load_models=False).model)
    digests = {find_model_files(one).digest() for one in copies}
    assert len(digests) == 2
    assert {find_stable(place.config, version_of(one)).sha256 for one in copies} == {other}


def leave_one(place: Place) -> None:
    for path in (place.first, place.first.with_suffix(".json")):
        path.unlink()


def test_a_copy_that_answers_otherwise_is_not_released(place: Place) -> None:
    """A model that adds noise never answers alike; of no kind, it only has to load."""
    leave_one(place)
    noisy = place.export / "noisy.onnx"
    write_onnx(noisy, size=16)
    model = onnx.load(noisy)
    model.graph.node.insert(0, helper.make_node("RandomNormalLike", ["input"], ["noise"]))
    model.graph.node[1].input[0] = "noise"
    tell_all(model)
    onnx.save(model, noisy)
    kinds = "models:\n  pill: {pattern: 'model-*.onnx', link: latest.onnx}\n"
    config = load_config(write_config(place.config_path.parent, kinds), {})
    with pytest.raises(ReleaseError, match=r"export/noisy\.onnx: its copy .* answers otherwise$"):
        build_release(config, STRIPPED)
    assert not visible(config.releases_dir)
    assert len(build_release(config, QUICK).gives_away) == 1


def test_a_model_that_cannot_be_asked_is_not_released_as_a_copy(place: Place) -> None:
    leave_one(place)
    path = place.export / "two.onnx"
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "abc"]
    node = helper.make_node("Add", ["a", "b"], ["c"], doc_string=TRACE)
    graph = helper.make_graph([node], "two", tensors[:2], tensors[2:])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    kinds = "models:\n  pill: {pattern: 'model-*.onnx', link: latest.onnx}\n"
    config = load_config(write_config(place.config_path.parent, kinds), {})
    with pytest.raises(ReleaseError, match=r"^export/two\.onnx: cannot be shown to answer alike: "):
        build_release(config, STRIPPED)
    assert not visible(config.releases_dir)


def test_a_model_is_looked_through_wherever_it_holds_texts(tmp_path: Path) -> None:
    model = make_rich()
    path = tmp_path / "rich.onnx"
    onnx.save(model, path)
    found = look(path)
    assert {one.place for one in found} == {"metadata"}
    assert len(found) == 2 * 5 + 5
    data = path.read_bytes()
    pieces = leave_out(data, 0, len(data), [one.span for one in found])
    copy = b"".join(one if isinstance(one, bytes) else data[slice(*one)] for one in pieces)
    path.write_bytes(copy)
    assert look(path) == ()
    assert b"net.py" not in copy
    left = onnx.load(path)
    assert {one.key: one.value for one in left.metadata_props} == {"names": "{0: 'round'}"}
    onnx.checker.check_model(left)
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def make_rich() -> onnx.ModelProto:
    """A model with a branch, a function and a sparse weight, a trace wherever one can stand."""
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    weight = numpy_helper.from_array(np.ones(2, np.float32), "w")
    weight.doc_string = TRACE
    weight.metadata_props.add(key=KEY, value=TRACE)
    inner = helper.make_node("Constant", [], ["y"], value=weight, doc_string=TRACE)
    inner.attribute[0].doc_string = TRACE
    branch = helper.make_graph([inner], "branch", [], [value], doc_string=TRACE)
    switch = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    called = helper.make_node("own", ["z"], ["out"], domain="pills")
    called.metadata_props.add(key=KEY, value=TRACE)
    body = helper.make_node("Relu", ["a"], ["b"], doc_string=TRACE)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pills", 1)]
    own = helper.make_function("pills", "own", ["a"], ["b"], [body], opsets[:1])
    own.doc_string = "made in C:\\Users\\kim\\net.py"
    graph = helper.make_graph(
        [switch, called],
        "main",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2])],
    )
    graph.input[0].doc_string = "see /data/net.py"
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[own])
    model.metadata_props.add(key="names", value="{0: 'round'}")
    model.metadata_props.add(key="data", value="/home/max16/pills/data.yaml")
    return model


@pytest.mark.parametrize(
    ("text", "path", "user"),
    [
        ("/home/max16/ssd/best", "/home/max16/ssd/best", "max16"),
        ("/home/홍길동/모델.py:3", "/home/홍길동/모델.py", "홍길동"),
        ("/Users/kim/x", "/Users/kim/x", "kim"),
        (r"C:\Users\kim\net.py", r"C:\Users\kim\net.py", "kim"),
        (r'{"data": "D:\\pills\\coco.yaml"}', r"D:\\pills\\coco.yaml", None),
        (r"\\nas\share\best.pt", r"\\nas\share\best.pt", None),
        ("file:///home/kim/w.bin", "file:///home/kim/w.bin", "kim"),
        ("{'data': '/data/coco.yaml'}", "/data/coco.yaml", None),
        ('File "src/net.py", line 3, in forward', "src/net.py", None),
        ("/stem/stem.0/Conv_output_0", None, None),
        ("/transformer/h.0/attn/c_proj/Gemm", None, None),
        ("https://github.com/pills/net.py", None, None),
        ('File "<stdin>", line 1', None, None),
        (": net.Pills/stem: torch.nn.Conv2d/aten.conv2d", None, None),
    ],
)
def test_a_path_is_told_from_what_only_looks_like_one(
    tmp_path: Path, text: str, path: str | None, user: str | None
) -> None:
    model = onnx.load(write_onnx(tmp_path / "model.onnx"))
    model.graph.doc_string = text
    model.graph.node[0].metadata_props.add(key="where", value=text)
    onnx.save(model, tmp_path / "model.onnx")
    found = {(one.path, one.user) for one in look(tmp_path / "model.onnx")}
    assert found == ({(path, user)} if path else set())


def test_the_name_of_this_host_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "pill-ws1.lan")
    model = onnx.load(write_onnx(tmp_path / "model.onnx"))
    model.doc_string = "trained on PILL-WS1, not on pill-ws12"
    onnx.save(model, tmp_path / "model.onnx")
    (line,) = describe_tellings("export/model.onnx", look(tmp_path / "model.onnx"))
    assert "gives away the host PILL-WS1 in 1 entry of its metadata" in line


def test_a_text_that_is_longer_than_what_is_read_at_once_is_read_to_its_end(tmp_path: Path) -> None:
    model = onnx.load(write_onnx(tmp_path / "model.onnx"))
    model.graph.doc_string = f"{'x ' * (1 << 20)}/home/kim/net.py"
    onnx.save(model, tmp_path / "model.onnx")
    assert [one.user for one in look(tmp_path / "model.onnx")] == ["kim"]


def test_the_weights_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(write_onnx(tmp_path / "model.onnx"))
    tell_all(model)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(8 << 20, np.float32), "large"))
    onnx.save(model, tmp_path / "model.onnx")
    read, pread = list[int](), os.pread

    def count(file: int, length: int, offset: int) -> bytes:
        read.append(length)
        return pread(file, length, offset)

    monkeypatch.setattr(os, "pread", count)
    assert len(look(tmp_path / "model.onnx")) == 3
    assert sum(read) < 1 << 20


def test_a_file_that_ends_anywhere_is_refused_by_name_or_looked_through(tmp_path: Path) -> None:
    model = onnx.load(write_onnx(tmp_path / "whole.onnx"))
    tell_all(model)
    data, path = model.SerializeToString(), tmp_path / "cut.onnx"
    refused = 0
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        try:
            look(path)
        except ModelError as error:
            refused += 1
            assert str(error).startswith("cut.onnx: not an ONNX model, or damaged (")
            assert error.exit_code == 2
    assert refused > 80


def test_an_exported_program_is_refused_by_name(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ModelError, match=r"model\.pt2: not an ONNX model but a zip file"):
        build_release(place.config, ReleaseRequest(path, only=True, strip_metadata=True))
