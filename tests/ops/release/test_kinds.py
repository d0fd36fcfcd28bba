"""A release of a two-stage export folder is made, proved and restored without a flag."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from opslib.core.errors import InputError, ParameterError, StorageError
from opslib.core.kinds import pick_kind
from opslib.inference.checks import check_model
from opslib.inference.preprocess import preprocess
from opslib.ops.release.build import build_release
from opslib.ops.release.card_making import make_card
from opslib.ops.release.manifest import Manifest
from opslib.ops.release.prune import find_kept
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.restore import restore_release
from opslib.ops.release.rollback import list_released
from opslib.ops.release.rota import prove_release
from opslib.ops.release.store import find_release
from opslib.serving.reachable import LiveModel
from tests.models import write_onnx
from tests.ops.release.conftest import QUICK, make_experiment, members_of
from tests.serving.conftest import write_card
from tests.two_stage import TwoStage, make_two_stage, write_detector

UNVERIFIED = ReleaseRequest(verify=False)


@pytest.fixture
def place(tmp_path: Path) -> TwoStage:
    """A two-stage experiment with what a release wants, its metrics dated in their name."""
    place = make_two_stage(tmp_path, cards=True)
    records = place.config.records_dir
    records.mkdir(parents=True, exist_ok=True)
    (records / "metrics_20261101.json").write_text('{"top1": 0.9}')
    (tmp_path / ".env.example").write_text("API_KEY=CHANGE_ME_STRONG_RANDOM_KEY_HERE\n")
    return place


def card_detectors(place: TwoStage) -> None:
    for model in place.detectors:
        make_card(place.config, model, inputs=str(place.export / "golden" / "[01].jpg")).write()


def manifest_of(path: Path) -> Manifest:
    return Manifest.model_validate_json(members_of(path)["MANIFEST.json"])


def test_it_is_made_verified_proved_and_restored(place: TwoStage) -> None:
    card_detectors(place)
    write_detector(place.export / "segmentation-1.onnx")  # of no kind: it has to load
    made = build_release(place.config)
    stages = {Path(one.path).name: one.stages[-1] for one in made.models}
    assert stages.pop("segmentation-1.onnx") == "load"
    assert set(stages.values()) == {"golden"}
    manifest = manifest_of(made.path)
    assert {one.name: one.latest for one in manifest.kinds} == {
        "detection": f"export/{place.detectors[-1].name}",
        "classification": f"export/{place.classifiers[-1].name}",
    }
    assert manifest.main == f"export/{place.classifiers[-1].name}"
    proof = prove_release(place.config, find_release(place.config, made.path))
    assert proof.verdict == "pass", proof.finding
    step = next(one for one in proof.steps if one.name == "detection model by itself")
    assert "2 golden images: every output as its card says" in step.found
    restored = restore_release(made.path, config=place.config)
    for kind, models in place.models.items():
        link = restored.folder / "export" / f"latest_{kind}.onnx"
        assert link.readlink() == Path(models[-1].name)


def test_a_detector_without_golden_images_is_proved_as_far_as_it_goes(place: TwoStage) -> None:
    made = build_release(place.config, UNVERIFIED)
    proof = prove_release(place.config, find_release(place.config, made.path))
    assert proof.verdict == "inconclusive"
    assert "its detection model has no golden images to be asked" in proof.finding


def test_a_detector_that_answers_otherwise_fails_the_proof(place: TwoStage) -> None:
    card_detectors(place)
    card = place.detectors[-1].with_suffix(".json")
    content = json.loads(card.read_text())
    for one in content["golden_outputs"]:
        one["outputs"][0]["values"][0] += 1
    card.write_text(json.dumps(content))
    made = build_release(place.config, UNVERIFIED)
    proof = prove_release(place.config, find_release(place.config, made.path))
    assert proof.verdict == "fail"
    assert proof.steps[-1].name == "detection model by itself"


def test_a_release_of_one_kind_has_no_field_of_several(tmp_path: Path) -> None:
    place = make_experiment(tmp_path)
    manifest = members_of(build_release(place.config, UNVERIFIED).path)["MANIFEST.json"]
    assert "kinds" not in json.loads(manifest)


def test_going_back_prefers_the_model_that_a_release_was_made_for(place: TwoStage) -> None:
    build_release(place.config, UNVERIFIED)
    for kind, models in place.models.items():
        found = list(list_released(place.config, None, None, [], pick_kind(place.config, kind)))
        assert [one.path.name for one in found] == [models[1].name, models[0].name]


@pytest.mark.parametrize("kind", ["detection", "classification"])
def test_the_release_that_holds_what_is_served_of_either_kind_stays(
    place: TwoStage, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, names = place.models[kind][0], []
    digest = None
    for second in range(4):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(1_790_000_000 + second))
        made = build_release(place.config, UNVERIFIED)
        names.append(made.path.name.removesuffix(".tar.gz"))
        if second == 0:
            digest = next(
                one.sha256 for one in manifest_of(made.path).models if one.path.endswith(model.name)
            )
            model.unlink()
            model.with_suffix(".json").unlink(missing_ok=True)
    kept = find_kept(place.config, keep=2, live=(LiveModel("asked", model, digest),))
    assert "served now" in kept[names[0]]
    assert names[1] not in kept


def test_the_newest_metrics_are_taken_and_must_say_something(place: TwoStage) -> None:
    records = place.config.records_dir
    (records / "metrics_20261102.json").write_text('{"top1": 0.95}')
    ahead = records / "metrics_late.json"
    ahead.write_text('{"top1": 1.0}')
    (records / "metrics.old.json").write_text("kept by hand")
    future = time.time() + 86_400
    os.utime(ahead, (future, future))
    os.utime(records / "metrics_20261101.json", (1, 1))
    made = build_release(place.config, UNVERIFIED)
    packed = [name for name in members_of(made.path) if name.startswith("reports/")]
    assert packed == ["reports/metrics_20261102.json"]
    (records / "metrics_20261102.json").write_text("{}")
    with pytest.raises(InputError, match=r"metrics_20261102\.json: says nothing"):
        build_release(place.config, QUICK)


def test_a_card_is_made_of_a_model_of_either_kind(place: TwoStage) -> None:
    golden = str(place.export / "golden" / "*.jpg")
    for model in (place.export_model("classification", 5), place.detectors[0]):
        made = make_card(place.config, model, inputs=golden, images=2)
        assert not model.with_suffix(".json").exists()
        made.write()
        kind = "classifier" if "classification" in model.name else "any"
        check = check_model(model, made.card, preprocess=preprocess, contract=kind)
        assert check.stages[-1] == "golden"
        assert all((model.parent / one.image).is_file() for one in made.card.golden_images)
        with pytest.raises(ParameterError, match=r"is there already; --force replaces it"):
            make_card(place.config, model, inputs=golden)
        make_card(place.config, model, inputs=golden, force=True).write()


def test_a_card_says_what_is_still_to_be_done_with_the_answers(place: TwoStage) -> None:
    golden = str(place.export / "golden" / "*.jpg")
    cards = []
    for head in (None, "Softmax"):
        model = write_onnx(place.export / f"classification-{head}.onnx", size=16, head=head)
        cards.append(make_card(place.config, model, inputs=golden).card)
    assert [card.postprocess for card in cards] == ["softmax", "none"]
    for one, other in zip(*(card.golden for card in cards), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_a_card_takes_class_names_only_where_the_answers_bear_them_out(place: TwoStage) -> None:
    names, model = tuple("abc"), place.export_model("classification", 6)
    root = place.config.data_root
    card = write_card(model, place.images)
    model.with_suffix(".json").unlink()
    sources = {one.class_id: place.export / one.image for one in card.golden}
    for number, name in enumerate(names):
        (root / "train" / name).mkdir(parents=True)
        source = sources.get(number, place.images[0])
        Image.open(source).save(root / "train" / name / "0.png")
        if number in sources:
            (root / "val" / "images" / name).mkdir(parents=True)
            Image.open(source).save(root / "val" / "images" / name / "0.png")
    assert make_card(place.config, model).card.class_names == names
    for folder in (root / "val" / "images").iterdir():
        folder.rename(folder.with_name(f"not-{folder.name}"))
    made = make_card(place.config, model)
    assert made.card.class_names == ()
    assert "no class names" in made.notes[0]


def test_a_card_that_cannot_be_written_leaves_no_image(place: TwoStage) -> None:
    model = write_onnx(place.export / "classification-x.onnx", classes=3, size=16)
    made = make_card(place.config, model, inputs=str(place.export / "golden" / "*.jpg"))
    before = sorted((place.export / "golden").iterdir())
    model.with_suffix(".json").mkdir()
    with pytest.raises(StorageError, match="directory"):
        made.write()
    assert sorted((place.export / "golden").iterdir()) == before


def test_a_folder_in_place_of_a_card_is_refused_before_the_model_is_asked(place: TwoStage) -> None:
    model = write_onnx(place.export / "classification-y.onnx", classes=3, size=16)
    model.with_suffix(".json").mkdir()
    with pytest.raises(
        ParameterError, match=r"y\.json: is a folder; expected the place of the card"
    ):
        make_card(place.config, model, force=True)


def test_a_release_about_a_model_of_no_kind_proves_that_it_loads(place: TwoStage) -> None:
    card_detectors(place)
    model = place.export / "segmentation-1.onnx"
    write_detector(model)
    made = build_release(place.config, ReleaseRequest(onnx=model, verify=False))
    proof = prove_release(place.config, find_release(place.config, made.path))
    step = next(one for one in proof.steps if one.name == "model by itself")
    assert step.found == "segmentation-1.onnx loads; not asked: its card has no golden images"
    assert proof.verdict == "inconclusive"


def test_a_card_keeps_nothing_of_a_card_of_other_bytes(place: TwoStage) -> None:
    golden, model = str(place.export / "golden" / "*.jpg"), place.detectors[0]
    card = make_card(place.config, model, inputs=golden).card
    model.with_suffix(".json").write_text(
        card.model_copy(update={"git_sha": "abc1234", "ckpt_path": "best.pt"}).model_dump_json()
    )
    kept = make_card(place.config, model, inputs=golden, force=True).card
    assert (kept.git_sha, kept.ckpt_path) == ("abc1234", "best.pt")
    write_detector(model, seed=77)
    fresh = make_card(place.config, model, inputs=golden, force=True).card
    assert (fresh.git_sha, fresh.ckpt_path) == (None, None)
    assert fresh.files != card.files


def test_a_card_is_of_the_kind_that_the_name_says(place: TwoStage) -> None:
    with pytest.raises(ParameterError, match="is of kind detection by its name"):
        make_card(place.config, place.detectors[0], kind="classification")
