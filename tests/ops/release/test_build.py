"""H-2: a release holds what restoring needs, is known by its content, and is whole or not there."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import onnx
import pytest

from opslib.core.config import load_config
from opslib.core.errors import (
    BusyError,
    ConfigError,
    InputError,
    ModelError,
    OpsError,
    StorageError,
)
from opslib.core.files import link_atomic, sha256_file
from opslib.core.locks import hold_lock
from opslib.core.models import find_model_files
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.companions import checksum_path, manifest_path
from opslib.ops.release.manifest import Manifest, compute_content_id
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.store import LOCK_NAME, find_release
from opslib.ops.release.verify import verify_release
from tests.damage import UNREADABLE
from tests.models import write_onnx
from tests.ops.release.conftest import (
    QUICK,
    answer_wrongly,
    grow_sidecar,
    hidden_files,
    make_experiment,
    members_of,
    visible,
)
from tests.serving.conftest import Place, make_cached
from tests.turns import looped, turns

EPOCH = "1700000000"


def manifest_of(record: ReleaseRecord) -> Manifest:
    return Manifest.model_validate_json(members_of(record.path)["MANIFEST.json"])


def test_a_release_holds_everything_that_restoring_needs(place: Place) -> None:
    record = build_release(place.config)
    assert record.path.name == f"release-{stamp_of(record)}-{record.git_sha}.tar.gz"
    golden = [f"export/golden/{image.name}" for image in place.images]
    assert list(members_of(record.path)) == [
        *sorted(
            [
                ".env.example",
                "config.yaml",
                "export/export_report.json",
                "export/model-a.json",
                "export/model-a.onnx",
                "export/model-b.json",
                "export/model-b.onnx",
                "export/model-b.onnx.data",
                "reports/metrics.json",
                "requirements.txt",
                *golden,
            ]
        ),
        "bom.cdx.json",
        "VERSION.txt",
        "MANIFEST.json",
    ]
    version = members_of(record.path)["VERSION.txt"].decode()
    assert record.released_at_utc in version
    assert record.git_sha in version
    assert record.models[0].stages[-1] == "golden"
    kept = ReleaseRecord.read(place.config.records_dir / f"release_{stamp_of(record)}.json")
    assert kept == record


def stamp_of(record: ReleaseRecord) -> str:
    return record.released_at_utc[:19].replace("-", "").replace(":", "").replace("T", "-")


def test_the_manifest_describes_files_and_models(place: Place) -> None:
    record = build_release(place.config, QUICK)
    manifest, members = manifest_of(record), members_of(record.path)
    assert manifest.content_id == record.content_id == compute_content_id(manifest.files)
    assert {e.path: e.size for e in manifest.files} == {
        name: len(data) for name, data in members.items() if name != "MANIFEST.json"
    }
    assert manifest.latest == manifest.main == "export/model-b.onnx"
    model = manifest.main_model
    assert model.sidecars == ("export/model-b.onnx.data",)
    assert model.card == "export/model-b.json"
    assert model.sha256 == find_model_files(place.second).digest()
    assert model.inputs[0].shape == ("N", 3, 16, 16)
    assert model.outputs[0].dtype == "float32"
    assert (model.num_classes, model.opset, model.git_sha) == (3, 18, "abc1234")
    assert manifest.provider_settings["providers"] == ["CUDA", "CPU"]
    assert manifest_path(record.path).read_bytes() == members["MANIFEST.json"]


def test_the_tools_of_every_shell_agree(shared: tuple[Place, ReleaseRecord]) -> None:
    path = shared[1].path
    for command in (
        ["sha256sum", "-c", checksum_path(path).name],
        ["gzip", "-t", path.name],
        ["tar", "tzf", path.name],
    ):
        answer = subprocess.run(
            command, cwd=path.parent, capture_output=True, text=True, check=True
        )
        assert not answer.stderr, command
    assert answer.stdout.splitlines() == list(members_of(path))


def test_the_same_content_has_the_same_identity_whenever_it_is_released(place: Place) -> None:
    first, second = (build_release(place.config, QUICK) for _ in range(2))
    assert first.path != second.path
    assert first.content_id == second.content_id
    (place.config.records_dir / "metrics.json").write_text('{"top1_pct": 98}')
    assert build_release(place.config, QUICK).content_id != first.content_id


def test_with_a_given_time_the_tar_is_the_same_byte_for_byte(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    tars = []
    for threads, name in ((1, "one"), (4, "two")):
        section = place.config.release.model_copy(update={"threads": threads})
        config = place.config.model_copy(update={"release": section})
        for path in place.export.glob("*.onnx"):
            os.utime(path)
        record = build_release(config, ReleaseRequest(out=Path(name), load_models=False))
        assert record.released_at_utc == "2023-11-14T22:13:20+00:00"
        tars.append(gzip.decompress(record.path.read_bytes()))
        with tarfile.open(record.path) as tar:
            facts = {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in tar}
        assert facts == {(int(EPOCH), 0, 0, "", 0o644)}
    assert tars[0] == tars[1]
    with pytest.raises(InputError, match="is there already"):
        build_release(place.config, ReleaseRequest(out=Path("one"), load_models=False))
    for given in ("yesterday", "-5", "-62000000000", "253402300800", ""):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
        with pytest.raises(ConfigError, match=f"SOURCE_DATE_EPOCH: got '{given}'"):
            build_release(place.config, QUICK)


def test_a_given_model_is_what_the_release_is_about_and_only_leaves_the_rest_out(
    place: Place,
) -> None:
    both = manifest_of(build_release(place.config, ReleaseRequest(onnx=place.first)))
    assert (both.main, both.latest) == ("export/model-a.onnx", "export/model-b.onnx")
    assert len(both.models) == 2
    alone = build_release(
        place.config, ReleaseRequest(onnx=place.first, only=True, load_models=False)
    )
    manifest = manifest_of(alone)
    assert [model.path for model in manifest.models] == ["export/model-a.onnx"]
    assert manifest.latest is None
    assert not [name for name in members_of(alone.path) if "model-b" in name]


def test_without_a_link_the_newest_model_is_meant(place: Place) -> None:
    (place.export / "latest.onnx").unlink()
    os.utime(place.second, (1, 1))
    manifest = manifest_of(build_release(place.config, QUICK))
    assert (manifest.main, manifest.latest) == ("export/model-a.onnx", None)


def test_a_model_from_elsewhere_and_what_the_link_means_are_packed_too(
    place: Place, tmp_path: Path
) -> None:
    far = write_onnx(tmp_path / "far" / "model-far.onnx", size=16, seed=4, sidecar=True)
    link_atomic(place.export / "latest.onnx", far)
    manifest = manifest_of(build_release(place.config))
    assert manifest.latest == manifest.main == "export/model-far.onnx"
    assert manifest.main_model.sidecars == ("export/model-far.onnx.data",)
    assert len(manifest.models) == 3


def test_a_model_of_a_hugging_face_cache_is_packed_under_its_own_names(
    place: Place, tmp_path: Path
) -> None:
    net = make_cached(tmp_path / "hub")
    link_atomic(place.export / "latest.onnx", net)
    for image in place.images:
        image.unlink()
    for model in (place.first, place.second):
        model.unlink()
    record = build_release(place.config)
    members = members_of(record.path)
    for name in ("net.onnx", "net.onnx.data", "net.json", "golden/0.jpg"):
        assert members[f"export/{name}"] == (net.parent / name).read_bytes()
    manifest = manifest_of(record)
    assert (manifest.main, manifest.latest) == ("export/net.onnx", "export/net.onnx")
    (verified,) = verify_release(record.path, config=place.config).models
    assert verified.golden_images == len(place.images)


def test_a_foreign_model_without_a_card_is_described_from_its_own_bytes(place: Place) -> None:
    for path in place.export.glob("*.json"):
        path.unlink()
    model = manifest_of(build_release(place.config)).main_model
    assert model.card is None
    assert (model.num_classes, model.opset, model.inputs[0].name) == (3, 18, "input")


def test_requirements_and_example_come_from_the_serving_code(tmp_path: Path) -> None:
    code = tmp_path / "serving"
    code.mkdir()
    (code / "requirements.txt").write_text("fastapi==0.1\n")
    (code / ".env.example").write_text("API_KEY=\n")
    place = make_experiment(tmp_path / "place")
    paths = place.config.paths.model_copy(update={"code_root": code})
    config = place.config.model_copy(update={"paths": paths})
    members = members_of(build_release(config, QUICK).path)
    assert members["requirements.txt"] == b"fastapi==0.1\n"
    assert members[".env.example"] == b"API_KEY=\n"
    (code / "requirements.txt").unlink()
    with pytest.raises(InputError, match=r"serving/requirements.txt: no such file"):
        build_release(config, QUICK)


def swap_latest(place: Place) -> None:
    link_atomic(place.export / "latest.onnx", place.first.name)


def replace_model(place: Place) -> None:
    fresh = place.export / "new.part"
    fresh.write_bytes(place.first.read_bytes())
    fresh.replace(place.second)


@pytest.mark.parametrize("meanwhile", [swap_latest, replace_model])
def test_what_was_opened_is_what_is_packed(place: Place, meanwhile: object) -> None:
    before = {path.name: sha256_file(path) for path in place.export.glob("model-*")}
    done: list[str] = []

    def interfere(_share: float, what: str) -> None:
        if what.startswith("packing") and not done:
            done.append(what)
            meanwhile(place)  # type: ignore[operator]

    manifest = manifest_of(build_release(place.config, QUICK, interfere))
    assert done
    assert manifest.latest == "export/model-b.onnx"
    packed = {Path(e.path).name: e.sha256 for e in manifest.files if "model-" in e.path}
    assert packed == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.open("ab").write(b"more"), "changed while it was packed"),
        (lambda path: os.truncate(path, 100), "became shorter while it was packed"),
        (lambda path: path.open("r+b").write(b"other"), "changed while it was packed"),
    ],
    ids=["grows", "shrinks", "is rewritten"],
)
def test_a_file_that_is_written_to_while_it_is_packed_is_refused(
    place: Place, change: object, message: str
) -> None:
    def interfere(_share: float, what: str) -> None:
        if what.startswith("packing: ") and not done:
            done.append(what)
            change(place.second.with_name("model-b.onnx.data"))  # type: ignore[operator]

    done: list[str] = []
    size = 3 << 20
    with place.second.with_name("model-b.onnx.data").open("ab") as file:
        file.truncate(size)
    place.second.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=message):
        build_release(place.config, QUICK, interfere)
    assert visible(place.config.releases_dir) == []
    assert hidden_files(place.config.releases_dir) == []


def test_two_releases_in_one_second_have_two_names(place: Place) -> None:
    names = {build_release(place.config, QUICK).path.name for _ in range(3)}
    assert len(names) == 3
    with hold_lock(place.config.releases_dir / LOCK_NAME, "the other release"):
        done: list[OpsError] = []

        def second() -> None:
            try:
                build_release(place.config, QUICK)
            except OpsError as error:
                done.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert isinstance(done[0], BusyError)
    assert "the other release" in str(done[0])


def turn_in_a_circle(place: Place) -> None:
    link_atomic(place.export / "latest.onnx", "latest.onnx")


def be_a_folder(place: Place) -> None:
    (place.export / "latest.onnx").unlink()
    (place.export / "latest.onnx").mkdir()


def dangle(place: Place) -> None:
    place.second.unlink()


def empty(place: Place) -> None:
    shutil.rmtree(place.export)


def lock_away(place: Place) -> None:
    (place.export / "model-a.json").unlink()
    (place.export / "model-a.json").mkdir()


def tear(place: Place) -> None:
    place.second.with_name("model-b.onnx.data").unlink()


def flip(place: Place) -> None:
    data = bytearray(place.first.read_bytes())
    weights = onnx.load(place.first).graph.initializer[0].raw_data
    data[data.index(weights) + 1] ^= 1
    place.first.write_bytes(data)


def name_after_link(place: Place) -> None:
    elsewhere = place.export.parent / "latest.onnx"
    place.first.rename(elsewhere)
    link_atomic(place.export / "latest.onnx", elsewhere)


def lose_metrics(place: Place) -> None:
    (place.config.records_dir / "metrics.json").unlink()


def lose_golden(place: Place) -> None:
    place.images[0].unlink()


def garble(place: Place) -> None:
    place.first.write_bytes(b"not a model at all")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (dangle, r"latest.onnx: points at model-b.onnx, which is not there"),
        (turn_in_a_circle, r"latest.onnx: its links lead in a circle"),
        (be_a_folder, r"latest.onnx: is a folder; .*no other is taken in its place"),
        (empty, r"export: no ONNX model"),
        (tear, r"model-b.onnx.data is missing beside it"),
        (flip, r"model-a.onnx: differs from its card"),
        (lose_metrics, r"metrics.json: no such file; .*--allow-missing-metrics"),
        (lose_golden, r"its golden image golden/0.jpg is missing"),
        (garble, r"model-a.onnx: not an ONNX model"),
        (name_after_link, r"exp/latest.onnx: named as the link .*--only"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_what_is_missing_or_broken_is_refused_in_one_line(
    place: Place, spoil: object, message: str
) -> None:
    spoil(place)  # type: ignore[operator]
    with pytest.raises((InputError, ModelError), match=message) as caught:
        build_release(place.config, QUICK)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert visible(place.config.releases_dir) == []


def test_without_a_place_for_its_record_nothing_is_released(place: Place) -> None:
    shutil.rmtree(place.config.records_dir)
    place.config.records_dir.write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write into .*reports"):
        build_release(place.config, QUICK)
    assert visible(place.config.releases_dir) == []


def test_a_given_model_that_is_not_there_is_refused(place: Place) -> None:
    with pytest.raises(ModelError, match=r"nowhere.onnx: no such file"):
        build_release(place.config, ReleaseRequest(onnx=Path("/nowhere.onnx")))


def test_metrics_that_are_no_finite_numbers_are_noted(place: Place) -> None:
    path = place.config.records_dir / "metrics.json"
    path.write_text('{"val": {"top1": NaN, "top5": 0.99}, "losses": [1, Infinity]}')
    record = build_release(place.config, ReleaseRequest(load_models=False))
    assert "reports/metrics.json: val.top1 is nan, losses.1 is inf" in record.notes


def test_missing_metrics_may_be_allowed_and_are_then_noted(place: Place) -> None:
    lose_metrics(place)
    record = build_release(
        place.config, ReleaseRequest(allow_missing_metrics=True, load_models=False)
    )
    assert "reports/metrics.json was not there" in record.notes[0]
    assert manifest_of(record).notes == record.notes
    assert "reports/metrics.json" not in members_of(record.path)


def test_a_model_that_answers_wrongly_is_not_released(place: Place) -> None:
    answer_wrongly(place)
    with pytest.raises(OpsError, match=r"export/model-b.onnx: stage golden") as caught:
        build_release(place.config)
    assert caught.value.exit_code == 3
    assert visible(place.config.releases_dir) == []
    assert hidden_files(place.config.releases_dir) == []


def test_too_little_room_is_noticed_before_anything_is_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(place.export)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"needs .* 1000 B are free"):
        build_release(place.config, QUICK)
    assert visible(place.config.releases_dir) == []


LIMITED = """
import resource, sys
from opslib.core.config import load_config
from opslib.core.errors import OpsError
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    build_release(load_config(sys.argv[1], {}), ReleaseRequest(load_models=False))
except OpsError as error:
    print(error)
    sys.exit(int(error.exit_code))
"""


def test_a_disk_that_fills_leaves_nothing_behind(place: Place) -> None:
    grow_sidecar(place, 3 << 20)
    whole = build_release(place.config, QUICK)
    size, names = whole.size_bytes, visible(place.config.releases_dir)
    for limit in (0, 5000, size // 3, size * 9 // 10):
        answer = subprocess.run(
            [sys.executable, "-c", LIMITED, place.config_path, str(limit)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 2, answer.stderr
        assert "File too large" in answer.stdout
        assert visible(place.config.releases_dir) == names
        assert hidden_files(place.config.releases_dir) == []
    assert build_release(place.config, QUICK).content_id == whole.content_id


KILLED = """
import os, random, signal, sys, time
from opslib.core.config import load_config
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
config, seed = load_config(sys.argv[1], {}), int(sys.argv[2])
request = ReleaseRequest(load_models=False)
build_release(config, request)  # the first one imports what the others share
started = time.monotonic()
print(build_release(config, request).content_id, flush=True)
whole_s = time.monotonic() - started
rng = random.Random(seed)
for _ in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        try:
            build_release(config, request)
        finally:
            os._exit(0)
    time.sleep(rng.uniform(0, 1.1 * whole_s))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "done", flush=True)
"""


def test_what_a_killed_run_left_is_removed_and_nothing_else(place: Place) -> None:
    folder = place.config.releases_dir
    folder.mkdir(parents=True)
    stem = "release-20200101-000000-abc1234"
    mine = [
        f".{stem}.tar.gz.pillops-0123456789abcdef.tmp",
        f".{stem}.manifest.json.pillops-0123456789abcdef.tmp",
        f"{stem}.tar.gz.sha256",
    ]
    lone = "release-20200102-000000-abc1234.tar.gz.sha256"
    others = [".release-notes", "release-plan.manifest.json", lone, f".{stem}.tar.gz"]
    others += [f".{stem}.tar.gz.20261001", ".pins.json.20261001", f".{stem}.manifest.json.before_2"]
    for name in (*mine, *others):
        (folder / name).write_text("x")
    build_release(place.config, QUICK)
    assert not [name for name in mine if (folder / name).exists()]
    assert all((folder / name).exists() for name in others)


@looped
def test_kill_minus_nine_at_any_moment_leaves_no_partial_archive(place: Place) -> None:
    grow_sidecar(place, 12 << 20)
    answer = subprocess.run(
        [sys.executable, "-c", KILLED, place.config_path, "7", str(turns(5, 25))],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    content_id, *ends = answer.stdout.split()
    assert ends.count("killed") >= turns(3, 20)
    folder = place.config.releases_dir
    for archive in folder.glob("release-*.tar.gz"):
        assert verify_release(archive, config=place.config, load_models=False)
    again = build_release(place.config, QUICK)
    assert again.content_id == content_id
    assert hidden_files(folder) == []
    names = {name.split(".")[0] for name in visible(folder)}
    assert len(visible(folder)) == 3 * len(names)


def test_the_newest_release_is_found_and_its_manifest_is_at_hand(
    shared: tuple[Place, ReleaseRecord],
) -> None:
    place, record = shared
    stored = find_release(load_config(place.config_path, {}))
    assert stored.path == record.path
    assert stored.manifest().content_id == record.content_id


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", ["export/model-a.json", "export/export_report.json"])
def test_evidence_that_cannot_be_read_is_not_released(place: Place, name: str, kind: str) -> None:
    UNREADABLE[kind](place.config.exp_dir / name)
    with pytest.raises(InputError, match=rf"{Path(name).name}: evidence that is there") as caught:
        build_release(place.config, QUICK)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert visible(place.config.releases_dir) == []


@pytest.mark.parametrize("kind", UNREADABLE)
def test_metrics_that_cannot_be_read_are_refused_even_where_missing_ones_are_allowed(
    place: Place, kind: str
) -> None:
    UNREADABLE[kind](place.config.records_dir / "metrics.json")
    with pytest.raises(InputError, match=r"metrics.json: "):
        build_release(place.config, ReleaseRequest(allow_missing_metrics=True, load_models=False))
    assert visible(place.config.releases_dir) == []


@pytest.mark.parametrize("text", ["{}", "null", "[]", '"none"'])
def test_metrics_that_say_nothing_are_refused(place: Place, text: str) -> None:
    (place.config.records_dir / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=r"metrics.json: says nothing; expected"):
        build_release(place.config, QUICK)


def test_a_foreign_export_report_is_released_as_it_is(place: Place) -> None:
    text = '{"onnx_path": "model-b.onnx", "postprocess": {"name": "softmax"}}'
    (place.export / "export_report.json").write_text(text)
    record = build_release(place.config, QUICK)
    assert members_of(record.path)["export/export_report.json"] == text.encode()
