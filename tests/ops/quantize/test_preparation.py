"""Quantizing models that the quantizers get wrong: what is prepared, and what is told of a loss."""

import platform
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from opslib.core.config import Config, load_config
from opslib.core.errors import ModelError
from opslib.inference.trial import try_model
from opslib.ops.quantize import run as quantizing
from opslib.ops.quantize.divergence import find_divergence
from opslib.ops.quantize.preparation import Prepared, prepare_graph
from opslib.ops.quantize.record import QuantizeRecord
from opslib.ops.quantize.request import QuantizeRequest
from opslib.ops.quantize.run import run_quantize
from opslib.ops.quantize.source import check_source
from opslib.ops.quantize.story import list_notes
from tests.ops.quantize import faulty
from tests.ops.quantize.test_run import write_colours

SETTINGS = "quantize: {batch: [1]}\nonnx: {providers: [CPU]}\n"


@pytest.fixture(autouse=True)
def _untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is prepared, and what it answers, asks for no timing."""
    monkeypatch.setattr(quantizing, "measure_speed", lambda *_args, **_more: {})


def make_config(folder: Path, made: ModelProto, *, sidecar: bool = False) -> Config:
    write_colours(folder / "images/val", 6, seed=1)
    write_colours(folder / "images/train", 4, seed=2)
    faulty.write(made, folder / "exp/export/m.onnx", sidecar=sidecar)
    (folder / "config.yaml").write_text(f"paths:\n  exp_dir: exp\n  data_root: images\n{SETTINGS}")
    return load_config(folder / "config.yaml", {})


def quantize(folder: Path, made: ModelProto, *, sidecar: bool = False) -> QuantizeRecord:
    config = make_config(folder, made, sidecar=sidecar)
    return run_quantize(config, QuantizeRequest(samples="all"))


def flips(record: QuantizeRecord) -> dict[str, int]:
    """Changed answers by variant; an unavailable one counts as every answer."""
    return {row.name: row.accuracy.flipped if row.accuracy else 18 for row in record.variants}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (faulty.shared_weight, "2 shared weights duplicated"),
        (faulty.beta, "beta folded in 1 Gemm"),
        (faulty.alpha, "alpha folded in 1 Gemm"),
        (faulty.opset_10, "opset 10 → 13"),
        (faulty.function, "functions inlined"),
    ],
)
@pytest.mark.parametrize("sidecar", [False, True])
def test_what_the_quantizers_get_wrong_is_prepared_and_told_and_no_answer_is_lost(
    tmp_path: Path, make: Callable[[], ModelProto], says: str, sidecar: bool
) -> None:
    record = quantize(tmp_path, make(), sidecar=sidecar)
    assert record.prepared == (says,)
    assert f"Prepared for quantizing: {says}." in list_notes(record)
    assert flips(record) == {row.name: 0 for row in record.variants}
    assert not any(row.divergence for row in record.variants)


def test_a_report_names_the_dead_layer_where_int8_parts_from_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")  # where activations are signed
    record = quantize(tmp_path, faulty.dead_relu())
    row = record.row("static-minmax")
    assert row.accuracy is not None
    assert row.accuracy.rule != "met"
    assert row.divergence is not None
    assert row.divergence.first == "branch/Relu"
    (note,) = [line for line in list_notes(record) if line.startswith(f"{row.title}: branch/Relu")]
    assert "is the first layer where INT8 parts from float32: in float32 it is dead" in note
    assert "−" in note
    assert record.row("dynamic").divergence is None


def test_a_report_says_which_layer_loses_the_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizing, "prepare_graph", lambda source, *_: Prepared(source))
    record = quantize(tmp_path, faulty.shared_weight())
    row = record.row("dynamic")
    assert row.accuracy is not None
    assert row.accuracy.rule == "undecided"
    assert row.divergence is not None
    assert row.divergence.first == "fc1"
    (note,) = [line for line in list_notes(record) if line.startswith(f"{row.title}: fc1 (")]
    assert "is the first layer where INT8 parts from float32: its values are" in note
    assert record.row("static-minmax").divergence is None


class Images(CalibrationDataReader):
    """A batch of images, once."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self._given = iter([{"input": images}])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._given, None)


def spread(seed: int, scale: float = 1.0) -> NDArray[np.float32]:
    """Eight images of noise about three colours."""
    noise = np.random.default_rng(seed).normal(size=(8, 3, faulty.SIZE, faulty.SIZE))
    return (scale * (noise + np.array([1, 0, -1])[:, None, None])).astype(np.float32)


@pytest.mark.parametrize(
    ("make", "calibrated", "says"),
    [
        (faulty.beta, 1.0, r"head \(.* dB\) is the first layer"),
        (faulty.alpha, 0.1, "calibration saw .* alone, so it saturates"),
    ],
)
def test_the_first_layer_that_parts_is_named_with_what_is_known_of_the_reason(
    tmp_path: Path, make: Callable[[], ModelProto], calibrated: float, says: str
) -> None:
    source, variant = faulty.write(make(), tmp_path / "m.onnx"), tmp_path / "q.onnx"
    kinds = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(source), str(variant), Images(spread(0, calibrated)), **kinds)
    assert re.search(says, find_divergence(source, variant, spread(1)[:2]).finding)


def test_a_graph_whose_answers_would_change_is_left_as_it_is(tmp_path: Path) -> None:
    source = faulty.write(faulty.beta(), tmp_path / "m.onnx")
    images = np.random.default_rng(0).uniform(size=(4, 3, 16, 16)).astype(np.float32)
    answers = try_model(source, images=images).answered()
    target = tmp_path / "graph.onnx"
    assert prepare_graph(source, target, images, answers).path == target
    left = prepare_graph(source, target, images, answers + 1)
    assert left.path == source
    assert left.done == ("left as it is, since its float answers would change by 1",)


def test_an_optimized_model_is_refused_with_its_cause(tmp_path: Path) -> None:
    path = faulty.write(faulty.optimized(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"already optimized by ONNX Runtime \(1 FusedMatMul"):
        check_source(path)
