"""Accuracy of a variant: labels, raw counts, the rule, the proof, flips and batches."""

from pathlib import Path

import numpy as np
import pytest

from opslib.inference.engine import EngineRequest
from opslib.inference.preprocess import load_preprocessor
from opslib.ops.quantize.accuracy import (
    Predictions,
    check_batch_dependence,
    class_sizes,
    count_flips,
    judge_accuracy,
    judge_proof,
    list_flips,
    predict,
)
from opslib.ops.quantize.labels import Labels, find_labels
from opslib.ops.quantize.record import Accuracy
from tests.models import write_images, write_onnx

NAMES = ("a", "b", "c")
OURS = load_preprocessor("opslib.inference.preprocess:preprocess", None)


def make_predictions(classes: np.ndarray) -> Predictions:
    n = len(classes)
    return Predictions(classes.astype(np.int64), np.full(n, 0.9, np.float32), np.zeros(n))


def judge(n: int, lost: int, gained: int, *, labelled: bool = True) -> Accuracy:
    """Judge a variant that turns `lost` right answers wrong and `gained` wrong ones right."""
    labels = np.zeros(n, dtype=np.int64)
    before, after = labels.copy(), labels.copy()
    after[:lost] = 1
    before[lost : lost + gained] = 1
    known = Labels(labels if labelled else np.full(n, -1))
    return judge_accuracy(make_predictions(before), make_predictions(after), known, 0.5)


def test_labels_come_from_folder_names_in_the_cards_order(tmp_path: Path) -> None:
    paths = [tmp_path / name / "1.jpg" for name in ("c", "a")]
    labels = find_labels(paths, NAMES)
    assert labels.known
    assert labels.ids.tolist() == [2, 0]


def test_a_folder_that_names_no_class_leaves_all_images_unlabelled(tmp_path: Path) -> None:
    labels = find_labels([tmp_path / "a/1.jpg", tmp_path / "strange/2.jpg"], NAMES)
    assert not labels.known
    assert labels.note is not None
    assert "1 of 2 images" in labels.note
    assert "'strange'" in labels.note
    assert not find_labels([tmp_path / "a/1.jpg"], ()).known


def test_the_rule_looks_at_the_drop_seen() -> None:
    assert judge(1000, 5, 0).rule == "met"
    assert judge(1000, 6, 0).rule == "missed"
    assert judge(1000, 16, 11).rule == "met"
    assert judge(128, 1, 0).rule == "missed"
    assert judge(200, 0, 3).drop_pp == pytest.approx(-1.5)


def test_the_proof_looks_at_the_whole_interval() -> None:
    assert judge(2600, 3, 2).proof == "proven"
    small = judge(128, 0, 0)
    assert (small.rule, small.proof, small.images_to_settle) == ("met", "inconclusive", 598)
    assert judge(128, 40, 1).proof == "disproven"
    assert judge(2600, 3, 2).images_to_settle is None
    assert judge_proof(-0.1, 0.5, 0.5) == "proven"
    assert judge_proof(0.5, 0.9, 0.5) == "inconclusive"


def test_counts_and_accuracies_are_those_of_the_images() -> None:
    one = judge(400, 8, 2)
    assert (one.n, one.lost, one.gained, one.flipped) == (400, 8, 2, 10)
    assert one.baseline_top1_pct == pytest.approx(99.5)
    assert one.top1_pct == pytest.approx(98.0)
    assert one.drop_pp == pytest.approx(1.5)
    assert one.disagreement_pct == pytest.approx(2.5)


def test_unlabelled_images_prove_through_the_disagreement_but_never_disprove() -> None:
    proven = judge(2600, 3, 2, labelled=False)
    assert (proven.rule, proven.proof, proven.drop_pp) == ("met", "proven", None)
    assert 100 * 5 / 2600 < proven.drop_max_pp < 0.5
    far = judge(1000, 100, 100, labelled=False)
    assert (far.rule, far.proof, far.images_to_settle) == ("undecided", "inconclusive", None)
    few = judge(300, 0, 0, labelled=False)
    assert (few.rule, few.proof, few.images_to_settle) == ("met", "inconclusive", 598)


def test_flips_name_the_image_both_answers_and_the_class(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / f"{i}.jpg" for i in range(4)]
    labels = Labels(np.array([0, 0, 0, 0]))
    before = make_predictions(np.array([0, 1, 0, 1]))
    after = make_predictions(np.array([0, 0, 2, 2]))
    flips = list_flips(paths, before, after, labels, NAMES)
    assert [(one.image, one.before, one.after, one.kind) for one in flips] == [
        ("a/2.jpg", "a", "c", "lost"),
        ("a/1.jpg", "b", "a", "gained"),
        ("a/3.jpg", "b", "c", "other"),
    ]
    (row,) = count_flips(flips, class_sizes(before, labels, NAMES))
    assert (row.name, row.count, row.lost, row.gained, row.other) == ("a", 4, 1, 1, 1)


def test_without_labels_no_flip_is_called_lost(tmp_path: Path) -> None:
    labels = Labels(np.full(2, -1))
    before, after = make_predictions(np.array([0, 1])), make_predictions(np.array([1, 1]))
    (flip,) = list_flips([tmp_path / "1.jpg", tmp_path / "2.jpg"], before, after, labels, ())
    assert (flip.kind, flip.label, flip.before) == ("other", None, "class 0")
    assert class_sizes(before, labels, NAMES) == {"a": 1, "b": 1}


def test_every_model_answers_the_same_images_with_progress(tmp_path: Path) -> None:
    names = [str(path) for path in write_images(tmp_path / "a", 70)]
    model = write_onnx(tmp_path / "m.onnx")
    fixed = write_onnx(tmp_path / "fixed.onnx", batch=4)
    other = write_onnx(tmp_path / "other.onnx", seed=1)
    headed = write_onnx(tmp_path / "headed.onnx", head="Softmax")
    seen: list[str] = []
    requests = {
        "float32": EngineRequest("onnx", model, batch_size=8),
        "fixed": EngineRequest("onnx", fixed, batch_size=8),
        "other": EngineRequest("onnx", other, batch_size=8),
        "headed": EngineRequest("onnx", headed, batch_size=8),
    }
    answers = predict(requests, names, OURS, 16, lambda _share, what: seen.append(what))
    np.testing.assert_array_equal(answers["float32"].classes, answers["fixed"].classes)
    assert answers["float32"].mse.max() == 0
    assert answers["other"].mse.max() > 0
    np.testing.assert_allclose(
        answers["headed"].confidences, answers["float32"].confidences, atol=1e-6
    )
    assert len(answers["other"].classes) == 70
    assert seen == ["accuracy: 0 of 70 images", "accuracy: 64 of 70 images"]


def test_a_dynamic_scale_can_see_its_neighbours_and_a_float_cannot(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    names = [str(path) for path in write_images(tmp_path / "a", 16)]
    model = write_onnx(tmp_path / "m.onnx")
    quantize_dynamic(str(model), str(tmp_path / "q.onnx"), weight_type=QuantType.QInt8)

    def check(path: Path) -> float:
        found = check_batch_dependence(EngineRequest("onnx", path, batch_size=8), names, OURS, 16)
        assert found is not None
        assert (found.n, found.batch_size) == (16, 8)
        return found.max_abs_diff

    assert check(model) < 1e-6
    assert check(tmp_path / "q.onnx") > 1e-5
    fixed = write_onnx(tmp_path / "fixed.onnx", batch=4)
    request = EngineRequest("onnx", fixed, batch_size=8)
    assert check_batch_dependence(request, names, OURS, 16) is None
