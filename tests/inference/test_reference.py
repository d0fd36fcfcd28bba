"""The reference network never changes, and both engines give its answers alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from opslib.core.files import sha256_bytes
from opslib.inference.engine import EngineRequest
from opslib.inference.opening import open_engine
from opslib.inference.reference import (
    CLASSES,
    FACTORY,
    SHA256,
    build_reference,
    write_reference,
)


def test_graph_and_weights_are_those_that_every_older_figure_was_held_against() -> None:
    assert sha256_bytes(build_reference()) == SHA256


def test_the_file_is_valid_and_states_its_ir_and_opset() -> None:
    model = onnx.load_from_string(build_reference())
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)


@pytest.mark.parametrize(("count", "size"), [(1, 64), (3, 97)])
def test_both_engines_answer_alike(tmp_path: Path, count: int, size: int) -> None:
    images = np.random.default_rng(0).random((count, 3, size, size), dtype=np.float32)
    answers = []
    for engine in ("onnx", "torch"):
        request = EngineRequest(
            engine, write_reference(tmp_path, engine), batch_size=count, factory=FACTORY
        )
        with open_engine(request) as opened:
            answers.append(opened.run(images))
    assert answers[0].shape == (count, CLASSES)
    assert np.abs(answers[0] - answers[1]).max() < 1e-5
    assert np.ptp(answers[0]) > 0.01
