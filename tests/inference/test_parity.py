import numpy as np
import pytest

from opslib.core.errors import ModelError
from opslib.core.sections import ParitySection
from opslib.inference.parity import Probabilities, check_parity
from opslib.inference.postprocess import softmax

LIMITS = ParitySection()


def answers(seed: int = 0, count: int = 200, classes: int = 5, noise: float = 0) -> Probabilities:
    logits = np.random.default_rng(seed).normal(size=(count, classes)) * 3
    logits += np.random.default_rng(1).normal(0, noise, logits.shape)
    return softmax(logits.astype(np.float32))


def test_equal_outputs_pass() -> None:
    result = check_parity(answers(), answers(), LIMITS)
    assert result.passed
    assert (result.mse_mean, result.top1_mismatch_pct) == (0, 0)
    assert result.reason == "same class on 100.0 % of 200 images"


def test_another_network_fails_with_its_reasons() -> None:
    result = check_parity(answers(0), answers(1), LIMITS)
    assert not result.passed
    assert "mean squared error" in result.reason
    assert "the predicted class differs" in result.reason


def test_a_few_bad_images_show_in_the_99th_percentile() -> None:
    candidate = answers()
    candidate[:4] = answers(1)[:4]
    limits = ParitySection(mse_mean_max=1, top1_mismatch_max_pct=100)
    result = check_parity(answers(), candidate, limits)
    assert not result.passed
    assert "99th percentile" in result.reason


def test_half_precision_has_its_own_limits() -> None:
    reference, candidate = answers(), answers(noise=0.08)
    loose = check_parity(reference, candidate, LIMITS, half_precision=True)
    strict = check_parity(reference, candidate, LIMITS)
    assert loose.mse_mean_max == 5e-4
    assert loose.mse_p99_max is None
    assert loose.top1_mismatch_max_pct == 2
    assert strict.mse_mean_max == 1e-4


def test_an_output_that_is_not_finite_fails() -> None:
    candidate = answers()
    candidate[3, 1] = np.nan
    result = check_parity(answers(), candidate, LIMITS)
    assert not result.passed
    assert "not finite" in result.reason


def test_different_numbers_of_classes_are_refused() -> None:
    with pytest.raises(ModelError, match="checkpoint has 5 classes, the ONNX model 4"):
        check_parity(answers(), answers(classes=4), LIMITS)
