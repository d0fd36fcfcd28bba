import numpy as np
import pytest

from opslib.core.errors import ModelError
from opslib.core.sections import ParitySection
from opslib.measure.bench.parity import Logits, check_parity, softmax

LIMITS = ParitySection()


def logits(seed: int = 0, count: int = 200, classes: int = 5) -> Logits:
    return np.random.default_rng(seed).normal(size=(count, classes)).astype(np.float32) * 3


def test_equal_outputs_pass() -> None:
    result = check_parity(logits(), logits(), LIMITS)
    assert result.passed
    assert (result.mse_mean, result.top1_mismatch_pct) == (0, 0)
    assert result.reason == "same class on 100.0 % of 200 images"


def test_a_constant_shift_of_all_logits_is_no_difference() -> None:
    assert check_parity(logits(), logits() + 50, LIMITS).passed


def test_another_network_fails_with_its_reasons() -> None:
    result = check_parity(logits(0), logits(1), LIMITS)
    assert not result.passed
    assert "mean squared error" in result.reason
    assert "the predicted class differs" in result.reason


def test_a_few_bad_images_show_in_the_99th_percentile() -> None:
    candidate = logits()
    candidate[:4] = -candidate[:4]
    limits = ParitySection(mse_mean_max=1, top1_mismatch_max_pct=100)
    result = check_parity(logits(), candidate, limits)
    assert not result.passed
    assert "99th percentile" in result.reason


def test_half_precision_has_its_own_limits() -> None:
    reference = logits()
    candidate = reference + np.random.default_rng(1).normal(0, 0.08, reference.shape)
    candidate = candidate.astype(np.float32)
    loose = check_parity(reference, candidate, LIMITS, half_precision=True)
    strict = check_parity(reference, candidate, LIMITS)
    assert loose.mse_mean_max == 5e-4
    assert loose.mse_p99_max is None
    assert loose.top1_mismatch_max_pct == 2
    assert strict.mse_mean_max == 1e-4


def test_an_output_that_is_not_finite_fails() -> None:
    candidate = logits()
    candidate[3, 1] = np.nan
    result = check_parity(logits(), candidate, LIMITS)
    assert not result.passed
    assert "not finite" in result.reason


def test_different_numbers_of_classes_are_refused() -> None:
    with pytest.raises(ModelError, match="checkpoint has 5 classes, the ONNX model 4"):
        check_parity(logits(), logits(classes=4), LIMITS)


def test_softmax_survives_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0]], dtype=np.float32)), [[1, 0]])
